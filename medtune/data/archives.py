"""Compressed files and archives, member by member: gz, bz2 and xz, zip and tar, one in another at most, under bounds.

Nothing is unpacked to a path: a member streams, or is held in memory, or, where it is large and must be read out of
order, in a nameless temporary file, which the system takes back whatever happens.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from medtune.errors import DataError, printable
from medtune.limits import MEMBERS, UNPACKED_BYTES, UNPACKED_FREE, UNPACKED_RATIO

BLOCK = 1 << 20
IN_MEMORY = 16 << 20  # bytes of a member that is held; a larger one goes to a temporary file
COMPRESSED: dict[str, Callable[[Any], Any]] = {"gz": gzip.GzipFile, "bz2": bz2.BZ2File, "xz": lzma.LZMAFile}
DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)
MAGIC = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x1f\x8b": "gz",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\xd0\xcf\x11\xe0": "xls",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow",
}
FOREIGN = {
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"Rar!": "RAR",
    b"7z\xbc\xaf": "7-Zip",
    b"%PDF": "PDF",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"FEA1": "Feather",
    b"SQLite format": "SQLite",
    b"\x89HDF": "HDF5",
    b"{\\rtf": "RTF",
}


class Source(NamedTuple):
    """An open file, of the disk or of an archive."""

    name: str
    """As messages and origins have it: "a.jsonl", "a.zip!b/c.csv"."""
    file: BinaryIO
    """Random access; may be slow backwards where it is being unpacked."""
    suffix: str
    """Lower case, without that of a compression: ".jsonl" of "a.jsonl.gz"."""
    packed: bool = False
    """It is being unpacked; `held` before reading out of order."""


def kind_of(source: Source) -> str:
    """Tell from the first bytes: "zip" (or a workbook), "gz", "bz2", "xz", "tar", "xls", "parquet", "arrow", "text".

    Raises:
        DataError: a kind that is not read, by name.
    """
    source.file.seek(0)
    head = source.file.read(512)
    if head[257:262] == b"ustar":
        return "tar"
    foreign = next((foreign for magic, foreign in FOREIGN.items() if head.startswith(magic)), None)
    if foreign:
        raise DataError(f"{source.name}: a {foreign} file, which is not read here. Save its rows as jsonl or csv.")
    return next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "text")


def is_workbook(source: Source) -> bool:
    """Tell a zip archive that is an .xlsx file.

    Raises:
        DataError: damaged, or an office document of another kind.
    """
    with _intact(source.name), zipfile.ZipFile(source.file) as archive:
        names = archive.namelist()
    if "[Content_Types].xml" not in names:
        return False
    if any(name.startswith("xl/") for name in names):
        return True
    raise DataError(
        f"{source.name}: an office document that is no workbook. Save its text as .txt or its table as .csv."
    )


class Bounds:
    """What one file on disk may unpack to, over all its members.

    Args:
        name: of the file on disk.
        packed: its size in bytes.
    """

    def __init__(self, name: str, packed: int) -> None:
        self.name = name
        self.most = min(max(UNPACKED_FREE, UNPACKED_RATIO * packed), UNPACKED_BYTES)
        self.nbytes = 0

    def add(self, nbytes: int) -> None:
        """Count unpacked bytes.

        Raises:
            DataError: there are more than the file's size could honestly hold.
        """
        self.nbytes += nbytes
        if self.nbytes > self.most:
            raise DataError(
                f"{self.name}: it unpacks to over {self.most / 1e6:,.0f} MB, as a bomb does. If it is honest, unpack "
                "it yourself and name the folder."
            )


class _Counted(io.RawIOBase):
    """A stream being unpacked: counts what comes out, once, and tells damage in one line."""

    def __init__(self, stream: Any, name: str, bounds: Bounds) -> None:
        self.stream, self.name, self.bounds = stream, name, bounds
        self.furthest = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _intact(self.name):
            data = self.stream.read(len(buffer))
            place = self.stream.tell()
        buffer[: len(data)] = data
        if place > self.furthest:
            self.bounds.add(place - self.furthest)
            self.furthest = place
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:  # by reading, so that it is counted
            while self.read(BLOCK):
                pass
        with _intact(self.name):
            return int(self.stream.seek(offset, io.SEEK_CUR if whence == io.SEEK_END else whence))

    def tell(self) -> int:
        return int(self.stream.tell())


@contextlib.contextmanager
def _intact(name: str) -> Iterator[None]:
    """Inside, what a damaged archive raises is a DataError."""
    try:
        yield
    except DAMAGED as fault:
        raise DataError(
            f"{name}: a damaged archive, or one cut short ({type(fault).__name__}). Download it again."
        ) from None


@contextlib.contextmanager
def unpacked(source: Source, kind: str, bounds: Bounds) -> Iterator[Source]:
    """What a gz, bz2 or xz file holds, as a stream."""
    source.file.seek(0)
    with _intact(source.name):
        stream = COMPRESSED[kind](source.file) if kind != "gz" else gzip.GzipFile(fileobj=source.file)
    with stream, io.BufferedReader(_Counted(stream, source.name, bounds), BLOCK) as file:
        yield Source(source.name, file, source.suffix, packed=True)


@contextlib.contextmanager
def held(source: Source) -> Iterator[Source]:
    """The same for random access: as it is, or copied into memory or a nameless temporary file."""
    if not source.packed:
        source.file.seek(0)
        yield source
        return
    source.file.seek(0)
    start = source.file.read(IN_MEMORY)
    with io.BytesIO(start) if len(start) < IN_MEMORY else tempfile.TemporaryFile() as copy:
        if len(start) == IN_MEMORY:
            copy.write(start)
            shutil.copyfileobj(source.file, copy, BLOCK)
        copy.seek(0)
        yield Source(source.name, copy, source.suffix)


def member_names(source: Source, kind: str, bounds: Bounds) -> list[str]:
    """Names of the files in a zip or tar archive, in its order.

    Raises:
        DataError: a path that leads outside, a link, a device, a password, too many members, a size that is a bomb's or
            a lie, or damage.
    """
    with _intact(source.name):
        names = list(_zip_names(source) if kind == "zip" else _tar_names(source, bounds))
    return names


def _zip_names(source: Source) -> Iterator[str]:
    with zipfile.ZipFile(source.file) as archive:
        for number, info in enumerate(archive.infolist(), 1):
            mode = info.external_attr >> 16 & 0o170000
            odd = (
                "a password"
                if info.flag_bits & 1
                else "a link or device"
                if mode not in (0, 0o100000, 0o040000)
                else ""
            )
            _check_member(source.name, info.filename, number, odd)
            if not info.is_dir():
                yield info.filename


def _tar_names(source: Source, bounds: Bounds) -> Iterator[str]:
    source.file.seek(0)
    with tarfile.open(fileobj=source.file, mode="r|") as archive:
        for number, info in enumerate(archive, 1):
            plain = info.isdir() or (info.isfile() and not info.issparse())
            _check_member(source.name, info.name, number, "" if plain else "a link, a device or a sparse file")
            if info.size > bounds.most:  # past a lie, tarfile would look for the next member for hours
                bounds.add(info.size)
            archive.members = []  # type: ignore[attr-defined]  # they would pile up
            if not info.isdir():
                yield info.name


def _check_member(archive: str, name: str, number: int, odd: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        odd = "a path that leads outside of the archive"
    if number > MEMBERS:
        odd = f"more than {MEMBERS:,} members"
    if odd:
        raise DataError(f"{archive}: member {number} has {odd}, which is refused. Unpack what is data yourself.")


def members(source: Source, kind: str, wanted: set[str], bounds: Bounds) -> Iterator[Source]:
    """Open the wanted members of a zip or tar archive, one after the other; each is closed before the next."""
    read = _zip_members if kind == "zip" else _tar_members
    yield from read(source, wanted, bounds)


def _zip_members(source: Source, wanted: set[str], bounds: Bounds) -> Iterator[Source]:
    with zipfile.ZipFile(source.file) as archive:
        for info in archive.infolist():
            if info.filename in wanted and not info.is_dir():
                name = member_name(source.name, info.filename)
                with _intact(name):
                    stream = archive.open(info)
                with stream, io.BufferedReader(_Counted(stream, name, bounds), BLOCK) as file:
                    yield Source(name, file, suffix_of(info.filename), packed=True)


def _tar_members(source: Source, wanted: set[str], bounds: Bounds) -> Iterator[Source]:
    source.file.seek(0)
    with _intact(source.name):
        archive = tarfile.open(fileobj=source.file, mode="r|")  # noqa: SIM115
    with archive:
        while True:
            with _intact(source.name):
                info = archive.next()
                archive.members = []  # type: ignore[attr-defined]  # they would pile up
                stream = archive.extractfile(info) if info is not None and info.name in wanted else None
            if info is None:
                return
            if stream is not None:
                name = member_name(source.name, info.name)
                with _held_member(stream, info.size, name) as file:
                    yield Source(name, file, suffix_of(info.name))


@contextlib.contextmanager
def _held_member(stream: Any, nbytes: int, name: str) -> Iterator[BinaryIO]:
    """A member of a tar stream, which cannot go back, for random access."""
    with io.BytesIO() if nbytes <= IN_MEMORY else tempfile.TemporaryFile() as copy:
        with _intact(name):
            shutil.copyfileobj(stream, copy, BLOCK)
        copy.seek(0)
        yield copy


def member_name(archive: str, member: str) -> str:
    """A member as messages and origins have it, on one line."""
    return f"{archive}!{printable(member).replace(chr(10), '/')}"


def suffix_of(name: str) -> str:
    """Suffix of a file's name, lower case, without that of a compression.

    >>> suffix_of("a/train.JSONL.gz"), suffix_of("b.tar.xz"), suffix_of("c.gz"), suffix_of("README")
    ('.jsonl', '.tar', '', '')
    """
    path = PurePosixPath(name.lower())
    while path.suffix in (".gz", ".bz2", ".xz", ".gzip"):
        path = path.with_suffix("")
    return {".tgz": ".tar", ".tbz2": ".tar", ".txz": ".tar"}.get(path.suffix, path.suffix)

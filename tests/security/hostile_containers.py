"""Hostile containers of rows: archives, bombs, XML, legacy workbooks, parquet and arrow files, registries, links."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
from hostile import CANARY, SECRET, TESTS, World, artefact
from hostile_data import GOOD, LAUGHS, data_file
from hostile_files import ESCAPES, Calls, python, shell

ROWS = "".join(GOOD.replace("ibuprofen", f"drug {i}") for i in range(8))
BOMB = 100_000_000  # bytes, of nothing

# ---------------------------------------------------------------- zip


def zipped(name: str, *entries: tuple[str, bytes | str | int, int], fast: bool = False) -> None:
    """A zip archive of (name, content or a number of zero bytes, mode of the file or 0) members."""

    def content(_: World) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, text, mode in entries:
                info = zipfile.ZipInfo(member)
                info.external_attr = mode << 16
                archive.writestr(info, bytes(text) if isinstance(text, int) else text, zipfile.ZIP_DEFLATED)
        return stream.getvalue()

    data_file(name, "x.zip", content, fast)


def zip_of(member: str, content: bytes | str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return stream.getvalue()


TRAIN = ("train.jsonl", ROWS, 0)
zipped("zip_slip", TRAIN, (f"../../{CANARY}/train.jsonl", ROWS, 0), fast=True)
zipped("zip_slip_backslash", TRAIN, (f"..\\..\\{CANARY}\\train.jsonl", ROWS, 0))
zipped("zip_absolute", ("/etc/cron.d/train.jsonl", ROWS, 0))
zipped("zip_drive", ("C:/train.jsonl", ROWS, 0))
zipped("zip_link", ("train.jsonl", "/etc/passwd", stat.S_IFLNK | 0o777), fast=True)
zipped("zip_device", ("train.jsonl", "", stat.S_IFBLK | 0o666))
zipped("zip_names_with_escapes", (f"{ESCAPES}.jsonl", ROWS, 0), fast=True)
zipped("zip_name_twice", TRAIN, TRAIN)
zipped("zip_pickle_named_parquet", ("train.parquet", pickle.dumps(Calls(os.mkdir, "/tmp/never")), 0))
zipped("zip_script_inside", TRAIN, ("train.py", f"{CANARY} = 1\n", 0), ("__init__.py", f"{CANARY} = 1\n", 0))
zipped("zip_in_zip_in_zip", ("a.zip", zip_of("b.zip", zip_of("train.jsonl", ROWS)), 0))
zipped("zip_bomb", ("train.jsonl", BOMB, 0), fast=True)
data_file("zip_bomb_in_zip", "x.zip", lambda w: zip_of("a.zip", zip_of("train.jsonl", bytes(BOMB))))
zipped("zip_many_members", *((f"{i}.jsonl", "", 0) for i in range(5_000)))


def _lying_zip(world: World) -> bytes:
    """Sizes in the headers that the content does not have."""
    raw = bytearray(zip_of("train.jsonl", ROWS * 50))
    for magic, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = raw.index(magic) + at
        raw[place : place + 4] = (7).to_bytes(4, "little")
    return bytes(raw)


def _zip_with_flags(world: World) -> bytes:
    raw = bytearray(zip_of("train.jsonl", ROWS))
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(magic) + at] |= 1
    return bytes(raw)


data_file("zip_lying_sizes", "x.zip", _lying_zip)
data_file("zip_with_a_password", "x.zip", _zip_with_flags)
data_file("zip_cut", "x.zip", zip_of("train.jsonl", ROWS * 50)[:-30])
data_file("zip_directory_elsewhere", "x.zip", zip_of("train.jsonl", ROWS)[:-22] + b"PK\x05\x06" + b"\xff" * 18)

# ---------------------------------------------------------------- tar


def tarred(name: str, *kinds: tuple[str, bytes, str], fast: bool = False) -> None:
    """A tar archive of a good file and (name, type, link's target) members."""

    def content(world: World) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for member, kind, target in kinds:
                info = tarfile.TarInfo(member.format(canary=world.canary))
                info.type, info.linkname = kind, target.format(canary=world.canary, secret=world.root / SECRET)
                archive.addfile(info)
            info = tarfile.TarInfo("train.jsonl")
            info.size = len(ROWS)
            archive.addfile(info, io.BytesIO(ROWS.encode()))
        return stream.getvalue()

    data_file(name, "x.tar", content, fast)


tarred("tar_slip", (f"../../{CANARY}/train.jsonl", tarfile.REGTYPE, ""), fast=True)
tarred("tar_absolute", ("{canary}/train.jsonl", tarfile.REGTYPE, ""))
tarred("tar_link", ("a.jsonl", tarfile.SYMTYPE, "{secret}"), fast=True)
tarred("tar_hard_link", ("a.jsonl", tarfile.LNKTYPE, "{secret}"))
tarred("tar_link_to_a_folder", ("a", tarfile.SYMTYPE, "{canary}"), ("a/train.jsonl", tarfile.REGTYPE, ""))
tarred("tar_device", ("a.jsonl", tarfile.CHRTYPE, ""))
tarred("tar_pipe", ("a.jsonl", tarfile.FIFOTYPE, ""))
tarred("tar_sparse", ("a.jsonl", tarfile.GNUTYPE_SPARSE, ""))


def _tar_that_lies(world: World) -> bytes:
    """A member of exabytes, in a sum that fits."""
    info = tarfile.TarInfo("train.jsonl")
    info.size = 1 << 60
    return info.tobuf(tarfile.GNU_FORMAT) + ROWS.encode()


data_file("tar_lying_size", "x.tar", _tar_that_lies)
data_file("tar_gz_bomb", "x.tar.gz", lambda w: gzip.compress(_tar_of(bytes(BOMB)), 1), fast=True)
data_file("tar_pax_deep", "x.tar", lambda w: _tar_of(ROWS.encode(), {"path": "../" * 2000 + "train.jsonl"}))


def _tar_of(content: bytes, pax: dict[str, str] | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("train.jsonl")
        info.size, info.pax_headers = len(content), pax or {}
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


# ---------------------------------------------------------------- compressed files

data_file("gz_bomb", "x.jsonl.gz", lambda w: gzip.compress(bytes(BOMB), 1), fast=True)
data_file("bz2_bomb", "x.jsonl.bz2", lambda w: bz2.compress(bytes(BOMB)))
data_file("xz_bomb", "x.csv.xz", lambda w: lzma.compress(bytes(BOMB), preset=0))
data_file("gz_in_gz_in_gz", "x.jsonl.gz", gzip.compress(gzip.compress(gzip.compress(ROWS.encode()))))
data_file("gz_quine_like", "x.jsonl.gz", gzip.compress(ROWS.encode()) * 2000)
data_file("gz_cut", "x.jsonl.gz", gzip.compress(ROWS.encode() * 99)[:-12])
NAMED = b"\x1f\x8b\x08\x08" + bytes(6) + b"\x1b[2J\0"  # a header that holds a file's name
data_file("gz_name_with_escapes", "x.gz", NAMED + gzip.compress(ROWS.encode())[10:])
data_file("xz_giant_dictionary", "x.jsonl.xz", lambda w: _xz_with_a_giant_dictionary())


def _xz_with_a_giant_dictionary() -> bytes:
    """Its header asks for 4 GB of memory to read eight lines."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0}]
    raw = bytearray(lzma.compress(ROWS.encode(), check=lzma.CHECK_NONE, filters=filters))
    raw[16] = 40  # size of the dictionary, in the block's header, whose sum must fit
    size = (raw[12] + 1) * 4
    raw[12 + size - 4 : 12 + size] = zlib.crc32(raw[12 : 12 + size - 4]).to_bytes(4, "little")
    return bytes(raw)


# ---------------------------------------------------------------- XML

XML = (
    '<?xml version="1.0"?>{}<Document><QAPairs><QAPair><Question>{}</Question><Answer>b</Answer></QAPair></QAPairs>'
    "</Document>"
)
ADDRESS = "http://127.0.0.1:9/x"
Part = str | Callable[[World], str]


def xml(name: str, head: Part, question: Part, fast: bool = False) -> None:
    """A MedQuAD document with a head before its root, and a question."""

    def content(world: World) -> str:
        return XML.format(*(part(world) if callable(part) else part for part in (head, question)))

    data_file(name, "x.xml", content, fast)


xml("xml_billion_laughs", f"<!DOCTYPE x [{LAUGHS}]>", "&a9;", fast=True)
xml("xml_quadratic", f'<!DOCTYPE x [<!ENTITY a "{"a" * 100_000}">]>', "&a;" * 50_000)
xml("xml_outside_entity", lambda w: f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{w.root / SECRET}">]>', "&e;", fast=True)
xml("xml_entity_of_an_address", f'<!DOCTYPE x [<!ENTITY e SYSTEM "{ADDRESS}">]>', "&e;")
xml("xml_outside_dtd", f'<!DOCTYPE x SYSTEM "{ADDRESS}.dtd">', "a")
xml("xml_parameter_entity", f'<!DOCTYPE x [<!ENTITY % e SYSTEM "{ADDRESS}"> %e;]>', "a")
xml("xml_deep_and_closed", "", "<b>" * 50_000 + "</b>" * 50_000)
INCLUDE = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" parse="text" href="{}"/>'
xml("xml_include", "", lambda w: INCLUDE.format(w.root / SECRET))
xml("xml_stylesheet", f'<?xml-stylesheet href="{ADDRESS}.xsl"?>', "a")
data_file("xml_deep", "x.xml", "<Document><QAPairs>" + "<QAPair>" * 200_000)
data_file("xml_root_with_escapes", "x.xml", "<a\x9b31m>x</a\x9b31m>")
PARAS = "<para>" * 5000 + "a" + "</para>" * 5000
data_file("cnxml_deep", "x.cnxml", f'<document xmlns="http://cnx.rice.edu/cnxml"><content>{PARAS}</content></document>')

# ---------------------------------------------------------------- legacy .xls

GOOD_XLS = (TESTS / "data" / "files" / "drugs.xls").read_bytes()
HEADER, SECTOR = 512, 512
CHAINS = HEADER + 8 * SECTOR  # the sector that says which sector follows which
DIMENSIONS, SST, LABEL_SST, MERGED, BOUND_SHEET = 0x200, 0xFC, 0xFD, 0xE5, 0x85


def records(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """(id, place of the content, its length) of each record of the workbook's stream, which lies in one piece."""
    place = HEADER
    while place < len(raw) and any(raw[place : place + 4]):
        kind, length = (int.from_bytes(raw[place + i : place + i + 2], "little") for i in (0, 2))
        yield kind, place + 4, length
        place += 4 + length


def xls(name: str, change: Callable[[bytearray], None], fast: bool = False) -> None:
    """A legacy workbook with other bytes."""

    def content(_: World) -> bytes:
        raw = bytearray(GOOD_XLS)
        change(raw)
        return bytes(raw)

    data_file(name, "x.xls", content, fast)


def put(place: int, *numbers: int, size: int = 4) -> Callable[[bytearray], None]:
    """Write little-endian numbers at a place of the file."""

    def change(raw: bytearray) -> None:
        for i, number in enumerate(numbers):
            raw[place + i * size : place + (i + 1) * size] = number.to_bytes(size, "little")

    return change


def put_in(kind: int, at: int, *numbers: int, size: int = 2) -> Callable[[bytearray], None]:
    """The same in the content of the first record of a kind; -2 is its length."""

    def change(raw: bytearray) -> None:
        place = next(place for found, place, _ in records(bytes(raw)) if found == kind)
        put(place + at, *numbers, size=size)(raw)

    return change


xls("xls_oversized_record", put_in(SST, -2, 0xFFFF), fast=True)
xls("xls_oversized_first_record", put(HEADER + 2, 0xFFFF, size=2))
xls("xls_strings_without_end", put_in(SST, 0, 0xFFFFFFF, 0xFFFFFFF, size=4))
xls("xls_string_number", put_in(LABEL_SST, 6, 0xFFFFFF, size=4))
xls("xls_cell_far_away", put_in(LABEL_SST, 0, 0xFFFF, 0xFFFF))
xls("xls_dimensions", put_in(DIMENSIONS, 0, 0, 0xFFFFFFFF, size=4))
xls("xls_sheet_elsewhere", put_in(BOUND_SHEET, 0, 0x7FFFFFFF, size=4), fast=True)
xls("xls_sector_size", put(30, 60, size=2))
xls("xls_directory_elsewhere", put(48, 0x7FFFFFF0))
xls("xls_too_many_sectors", put(44, 0x7FFFFFFF))
xls("xls_endless_chain", put(CHAINS, 1, 2, 3, 4, 5, 6, 7, 0))
xls("xls_master_loop", put(68, 0, 0xFFFF))
xls("xls_first_sector", put(76, 0x7FFFFFFF))
xls("xls_of_nothing", lambda raw: raw.__setitem__(slice(8, None), bytes(600)), fast=True)
xls("xls_of_ones", lambda raw: raw.__setitem__(slice(8, None), b"\xff" * 4000))
xls("xls_cut", lambda raw: raw.__delitem__(slice(2500, None)))
data_file("xls_macro_like", "x.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + pickle.dumps(Calls(os.mkdir, "/tmp/never")))
data_file("xls_is_html", "x.xls", '<html><script src="http://127.0.0.1:9/x.js"></script><table></table></html>')

# ---------------------------------------------------------------- parquet and arrow


def table(world: World) -> pyarrow.Table:
    """Rows whose schema names an extension type of Python's, which old versions of pyarrow unpickle."""
    evil = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Calls(os.system, shell(world))),
    }
    fields = [pyarrow.field(name, pyarrow.string(), metadata=evil) for name in ("input", "output")]
    columns = [pyarrow.array([f"{name} {i}" for i in range(8)]) for name in ("What?", "That.")]
    info = json.dumps({"info": {"features": {"input": {"_type": "os.system"}}}})
    return pyarrow.table(columns, pyarrow.schema(fields, metadata={"huggingface": info, "pandas": python(world)}))


def arrow_bytes(world: World, stream: bool) -> bytes:
    sink, found = io.BytesIO(), table(world)
    writer = pyarrow.ipc.new_stream(sink, found.schema) if stream else pyarrow.ipc.new_file(sink, found.schema)
    with writer:
        writer.write_table(found)
    return sink.getvalue()


def parquet_bytes(world: World) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table(world), sink)
    return sink.getvalue()


def _with_footer(world: World, nbytes: int) -> bytes:
    return parquet_bytes(world)[:-8] + nbytes.to_bytes(4, "little") + b"PAR1"


def _spoilt(raw: bytes, start: int, step: int) -> bytes:
    """Every `step`-th byte from a place is another; a file of the same size."""
    found = bytearray(raw)
    for i in range(start % len(found), len(found) - 8, step):
        found[i] ^= 0x55
    return bytes(found)


data_file("arrow_extension_type_pickle", "x.arrow", lambda w: arrow_bytes(w, True), fast=True)
data_file("arrow_file_extension_type_pickle", "x.arrow", lambda w: arrow_bytes(w, False))
data_file("parquet_extension_type_pickle", "x.parquet", parquet_bytes, fast=True)
data_file("parquet_footer_past_the_start", "x.parquet", lambda w: _with_footer(w, 0x7FFFFFFF), fast=True)
data_file("parquet_footer_too_long", "x.parquet", lambda w: _with_footer(w, 1 << 20))
data_file("parquet_footer_spoilt", "x.parquet", lambda w: _spoilt(parquet_bytes(w), -600, 37))
data_file("parquet_pages_spoilt", "x.parquet", lambda w: _spoilt(parquet_bytes(w)[:200], 4, 7) + parquet_bytes(w)[200:])
data_file("arrow_offsets_spoilt", "x.arrow", lambda w: _spoilt(arrow_bytes(w, True), -200, 9))
data_file("arrow_giant_message", "x.arrow", b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(64))
data_file("parquet_encrypted", "x.parquet", lambda w: parquet_bytes(w)[:-4] + b"PARE")
data_file("parquet_bomb", "x.parquet", lambda w: _parquet_bomb())


def _parquet_bomb() -> bytes:
    """Ten million characters, in a few kilobytes."""
    sink, words = io.BytesIO(), ["a" * 1_000_000] * 10
    columns = [pyarrow.array(words).dictionary_encode(), pyarrow.array(["b"] * 10)]
    pyarrow.parquet.write_table(pyarrow.table(columns, ["input", "output"]), sink, compression="zstd")
    return sink.getvalue()


# ---------------------------------------------------------------- text, folders with links

data_file("md_escapes", "x.md", f"# {ESCAPES}\n\n![x](http://127.0.0.1:9/x.png) <script>{CANARY}</script>\n")
data_file("md_front_matter", "x.md", lambda w: f"---\n!!python/object/apply:os.system ['{shell(w)}']\n---\ntext\n")


def folder(name: str, *links: tuple[str, str], fast: bool = False) -> None:
    """A folder of a good file and links, each to a place that may name the user's secret."""

    def make(world: World, folder: Path) -> Path:
        target = folder / "set"
        target.mkdir()
        (target / "train.jsonl").write_text(ROWS)
        for link, place in links:
            (target / link).symlink_to(place.format(secret=world.root / SECRET, honest=world.root / "honest"))
        return target

    make.__name__ = name
    artefact("data", fast)(make)


folder("folder_link_to_a_secret", ("secret.txt", "{secret}"), fast=True)
folder("folder_link_to_a_folder", ("more", "{honest}"))
folder("folder_link_to_a_device", ("zero.jsonl", "/dev/zero"))
folder("folder_link_to_itself", ("a.jsonl", "a.jsonl"))


@artefact("data")
def folder_with_a_pipe(world: World, folder: Path) -> Path:
    target = folder / "set"
    target.mkdir()
    (target / "train.jsonl").write_text(ROWS)
    os.mkfifo(target / "more.jsonl")
    return target


@artefact("data")
def folder_saved_with_pickles(world: World, folder: Path) -> Path:
    """What `Dataset.save_to_disk` writes, honest but for the extension type in its arrow file."""
    from datasets import Dataset

    target = folder / "set"
    Dataset.from_dict({"input": ["a"], "output": ["b"]}).save_to_disk(str(target))
    for file in target.glob("*.arrow"):
        file.write_bytes(arrow_bytes(world, True))
    return target

"""Files that must be right: JSON, hashes, what is on the disk for sure, and manifests that say what a folder holds."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from medtune.errors import EnvironmentFault, ModelError

MANIFEST = "manifest.json"
WANTED = f"wanted a checkpoint folder of `medtune train`, such as epoch_1.pth, with {MANIFEST}"
NO_FSYNC = (errno.EINVAL, errno.ENOTSUP)  # some network file systems refuse it for folders


def read_json(file: Path, unique: bool = False) -> dict[str, Any]:
    """Read a JSON object; with `unique`, a name that stands twice is a fault. Raises ModelError naming the file."""
    if file.exists() and not file.is_file():  # reading a pipe or a device would not end
        raise ModelError(f"{file}: not a file; fetch it again.")
    try:
        found = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_without_duplicates if unique else None)
    except FileNotFoundError:
        raise ModelError(f"{file}: no such file; is {file.parent} the right folder?") from None
    except (OSError, ValueError, RecursionError) as fault:
        raise ModelError(f"{file}: not readable as JSON ({type(fault).__name__}); fetch or write it again.") from None
    if not isinstance(found, dict):
        raise ModelError(f"{file}: wanted a JSON object, got a {type(found).__name__}; fetch or write it again.")
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, indented, in UTF-8."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def private() -> Iterator[None]:
    """Inside, whatever this process writes is its owner's alone: folders 0700, files 0600."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def sha256(file: Path) -> str:
    """Hex sha256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fsync(path: Path) -> None:
    """Push a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as fault:
        if not (path.is_dir() and fault.errno in NO_FSYNC):
            raise
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Push a folder with all that is in it to the disk."""
    for path in [*folder.rglob("*"), folder]:
        fsync(path)


def remove(path: Path) -> None:
    """Remove a file, a folder with all in it, or a link, never what the link points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def require_space(folder: Path, nbytes: float, then: str = "Free some space or write elsewhere.") -> None:
    """Raise EnvironmentFault, which ends with what to do `then`, if a folder's disk has less than `nbytes` free."""
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise EnvironmentFault(
            f"{folder}: {free / 1e9:.2f} GB free on this disk, {nbytes / 1e9:.2f} GB needed; nothing there was "
            f"changed. {then}"
        )


# ---------------------------------------------------------------- manifests


def write_manifest(folder: Path) -> None:
    """Write `manifest.json`: size and sha256 of every file in a folder. No newline ends it, so that every cut shows."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    listed = {file.relative_to(folder).as_posix(): _entry(file) for file in files}
    (folder / MANIFEST).write_text(json.dumps({"files": listed}, indent=2, ensure_ascii=False), encoding="utf-8")


def _entry(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": sha256(file)}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Entries of a folder's manifest by file name.

    Raises:
        ModelError: no such folder, no manifest in it, or a damaged one, such as one that names files elsewhere.
    """
    if not folder.exists():
        raise ModelError(f"{folder}: no such folder; {WANTED}.")
    if not folder.is_dir():
        raise ModelError(f"{folder}: this is a file; {WANTED}.")
    if not (folder / MANIFEST).is_file():
        raise ModelError(f"{folder}: no {MANIFEST}, so it is not complete or not a checkpoint; {WANTED}.")
    listed = read_json(folder / MANIFEST, unique=True).get("files")
    if not isinstance(listed, dict) or not listed:
        raise ModelError(f"{folder / MANIFEST}: it lists no files; use another checkpoint.")
    for name in listed:
        if PurePosixPath(name).is_absolute() or not {"..", ""}.isdisjoint(name.split("/")) or "\0" in name:
            raise ModelError(f"{folder / MANIFEST}: it names a file outside its folder; use another checkpoint.")
    return listed


def check_files(folder: Path, names: Iterable[str] | None = None) -> None:
    """Compare files of a folder, by default all, with its manifest. Raises ModelError naming the first that differs."""
    listed = read_manifest(folder)
    for name in listed if names is None else names:
        file = folder / name
        try:
            if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
                raise ModelError(f"{file}: missing, though {MANIFEST} lists it; use another checkpoint.")
            if _entry(file) != listed.get(name):
                raise ModelError(f"{file}: damaged, its sha256 is not the one in {MANIFEST}; use another checkpoint.")
        except OSError as fault:
            raise ModelError(f"{file}: not readable ({fault.strerror}); use another checkpoint.") from None

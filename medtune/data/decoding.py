"""Open text files strictly: a byte that does not decode is an error with its place, never a replacement character."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from medtune.errors import DataError

UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def open_text(path: Path, name: str, encoding: str | None = None, newline: str | None = None) -> Iterator[TextIO]:
    """Open `path` for reading; `name` stands for it in messages.

    Args:
        encoding: None means UTF-8, with or without a byte order mark.
        newline: as for `open`; csv wants "".

    Raises:
        DataError: unknown encoding, or bytes that are not of it; names the offset and an encoding that would do.
    """
    try:
        codecs.lookup(encoding or "utf-8")
    except LookupError:
        raise DataError(f"unknown encoding {encoding!r}; Python knows utf-8, gb18030, big5, utf-16, ...") from None
    try:
        with path.open(encoding=encoding or "utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeError:  # `from None`: the original message quotes the data
        raise _wrong_encoding(path, name, encoding or "utf-8") from None


def _wrong_encoding(path: Path, name: str, encoding: str) -> DataError:
    data = path.read_bytes()
    offset = _fault_offset(data, encoding) or 0
    line = data.count(b"\n", 0, offset) + 1
    better = ""
    if data.startswith(UTF16_MARKS):
        better = "utf-16"
    elif not _reads_as_utf8(data[:offset]):
        better = next((e for e in ("utf-8", "gb18030") if e != encoding and _fault_offset(data, e) is None), "")
    advice = (
        f"It decodes as {better}: data_encoding={better!r} in a config, --encoding {better} elsewhere."
        if better
        else "Repair that byte, or name the file's encoding."
    )
    return DataError(f"{name}:{line}: not {encoding} text: the byte at offset {offset} does not decode. {advice}")


def _reads_as_utf8(data: bytes) -> bool:
    """Tell UTF-8 that is damaged further on from another encoding, of which short pieces may decode by chance."""
    try:
        return any(char >= "\u0800" for char in data.decode("utf-8"))
    except UnicodeError:
        return False


def _fault_offset(data: bytes, encoding: str) -> int | None:
    """Offset of the first byte that does not decode, None if all do."""
    try:
        data.decode(encoding)
    except UnicodeError as fault:
        return getattr(fault, "start", 0)
    return None

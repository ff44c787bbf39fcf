"""Text files, strictly: a byte that does not decode is an error with its place, never a replacement character."""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO, TextIO

from medtune.errors import DataError
from medtune.limits import ROW_BYTES

BLOCK = 1 << 20
MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
ENOUGH = 64  # bytes beyond one a character: no other encoding reads as that much UTF-8 by chance
ASCII = re.compile("[\x00-\x7f]+")


@contextlib.contextmanager
def open_text(file: BinaryIO, name: str, encoding: str | None = None, newline: str | None = None) -> Iterator[TextIO]:
    """Give the text of `file` from its start; `name` stands for it in messages. The file stays open.

    Args:
        encoding: None tells it from the content, see `detect`.
        newline: as for `open`; csv wants "".

    Raises:
        DataError: unknown encoding, or bytes that are not of it; names the offset and an encoding that would do.
    """
    codec = codec_of(file, encoding)
    file.seek(0)
    text = io.TextIOWrapper(file, encoding=codec, newline=newline)
    try:
        yield text
    except UnicodeError:  # `from None`: the original message quotes the data
        raise wrong_encoding(file, name, codec) from None
    finally:
        with contextlib.suppress(ValueError):  # closed with the file already
            text.detach()


def codec_of(file: BinaryIO, encoding: str | None) -> str:
    """Python's name of a text file's encoding: the given one, else what `detect` finds, else UTF-8, which then fails.

    Raises:
        DataError: there is none by that name.
    """
    if encoding is None:
        return detect(file) or "utf-8-sig"
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    except (LookupError, ValueError):
        raise DataError(f"unknown encoding {encoding!r}; Python knows utf-8, gb18030, big5, utf-16, ...") from None
    codec = codecs.lookup(encoding).name
    return "utf-8-sig" if codec == "utf-8" else codec


def detect(file: BinaryIO) -> str | None:
    """Tell a text file's encoding: by its byte order mark, as strict UTF-8, as Chinese in GB18030; else None.

    GB18030 is believed only if the whole file decodes and what comes out is everyday Chinese, since nearly any
    bytes decode to some rare character.
    """
    file.seek(0)
    head = file.read(4)
    marked = next((codec for mark, codec in MARKS if head.startswith(mark)), None)
    if marked:
        return marked
    file.seek(0)
    if _reads_as_utf8(file):
        return "utf-8-sig"
    file.seek(0)
    return "gb18030" if _reads_as_chinese(file) else None


def _reads_as_utf8(file: BinaryIO) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while block := file.read(BLOCK):
            if len(block) - len(decoder.decode(block)) > ENOUGH:
                return True
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _reads_as_chinese(file: BinaryIO) -> bool:
    decoder = codecs.getincrementaldecoder("gb18030")()
    sample = ""
    try:
        while block := file.read(BLOCK):
            text = decoder.decode(block)
            if len(sample) < BLOCK:
                sample += ASCII.sub("", text)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return _looks_chinese(sample)


def _looks_chinese(characters: str) -> bool:
    """Tell everyday Chinese from what GB18030 makes of other encodings' bytes; of characters beyond ASCII.

    Nine tenths must be of GB 2312 (Big5, Shift JIS, Latin-1 and damaged UTF-8 bring rare ones), half of them hanzi
    (kana says EUC-JP), and those spread over the alphabet (Korean of EUC-KR stays before lead byte C9).

    >>> [_looks_chinese(text) for text in ("体温升高。", "浣撴俯鍗囬珮", "すいません")]
    [True, False, False]
    """
    common = characters.encode("gb2312", "ignore")
    hanzi = [lead for lead in common[::2] if lead >= 0xB0]
    late = sum(lead >= 0xC9 for lead in hanzi)
    return len(common) >= 1.8 * len(characters) and 2 * len(hanzi) >= len(characters) and 5 * late >= len(hanzi) > 0


def head_of(file: BinaryIO, codec: str, nbytes: int) -> str:
    """The beginning of a text, for telling what it is; bytes that do not decode are told when they are read."""
    file.seek(0)
    return codecs.getincrementaldecoder(codec)("replace").decode(file.read(nbytes))


def bounded_lines(text: TextIO, name: str) -> Iterator[str]:
    """Lines of a text, none longer than `ROW_BYTES` characters.

    Raises:
        DataError: a longer one.
    """
    for number, line in enumerate(iter(partial(text.readline, ROW_BYTES + 1), ""), 1):
        if len(line) > ROW_BYTES:
            raise too_long(f"{name}:{number}")
        yield line


def too_long(place: str) -> DataError:
    """The fault of a row over the limit."""
    return DataError(f"{place}: longer than {ROW_BYTES >> 20} MB, which no row is; is it another kind of file?")


def wrong_encoding(file: BinaryIO, name: str, codec: str) -> DataError:
    """The fault of a text that is not in `codec`, with the place of the first wrong byte and an encoding that fits."""
    offset, line = _fault_place(file, codec)
    better = detect(file)
    shown = {"utf-8-sig": "utf-8"}
    if better is None or better == codec or better == shown.get(codec):
        advice = "Repair that byte, or name the file's encoding."
    else:
        better = shown.get(better, better)
        advice = f"It decodes as {better}: data_encoding={better!r} in a config, --encoding {better} elsewhere."
    place = f"{name}:{line}: not {shown.get(codec, codec)} text: the byte at offset {offset} does not decode."
    return DataError(f"{place} {advice}")


def _fault_place(file: BinaryIO, codec: str) -> tuple[int, int]:
    """Offset from 0 of the first byte that does not decode, and its line from 1."""
    decoder = codecs.getincrementaldecoder(codec.removesuffix("-sig"))()
    file.seek(0)
    fed, line = 0, 1
    while True:
        pending = len(decoder.getstate()[0])
        block = file.read(BLOCK)
        try:
            decoder.decode(block, final=not block)
        except UnicodeDecodeError as fault:
            return fed - pending + fault.start, line + fault.object[: fault.start].count(b"\n")
        except UnicodeError:  # of a codec that tells no place
            return fed, line
        if not block:
            return fed, line
        fed += len(block)
        line += block.count(b"\n")

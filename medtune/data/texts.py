"""Documents of a plain text file: one a line, one a paragraph, or the whole file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from medtune.data.decoding import bounded_lines, open_text, too_long
from medtune.data.records import Row
from medtune.limits import ROW_BYTES

DOCUMENTS = ("line", "paragraph", "file")
LEAST_LINES = 5


def read_text(file: BinaryIO, name: str, encoding: str | None, documents: str = "line") -> Iterator[Row]:
    """Yield `{"text": ...}` for every document; the origin is "a.txt:12", the line it begins on.

    Args:
        documents: "line": every line that is not blank; "paragraph": lines up to a blank one; "file": all of it.

    Raises:
        DataError: an encoding that does not fit, a document over the limit.
    """
    with open_text(file, name, encoding) as text:
        waiting: list[str] = []
        begins, length = 1, 0
        for number, line in enumerate(bounded_lines(text, name), 1):
            blank = line.isspace()
            if documents == "line":
                if not blank:
                    yield Row({"text": line.rstrip("\n")}, f"{name}:{number}")
                continue
            if not waiting:
                begins = number
            if not blank or (waiting and documents == "file"):
                waiting.append(line)
                length += len(line)
            if length > ROW_BYTES:
                raise too_long(f"{name}:{begins}")
            if blank and waiting and documents == "paragraph":
                yield Row({"text": "".join(waiting).rstrip("\n")}, f"{name}:{begins}")
                waiting, length = [], 0
        if waiting:
            yield Row({"text": "".join(waiting).rstrip()}, f"{name}:{begins}")


def is_tab_table(head: str, whole: bool) -> bool:
    r"""Tell a table from text by its first lines: five or more, each with as many tabs and something before the first.

    Args:
        head: the beginning of a file.
        whole: it is all of it; else its last line may be cut.

    >>> is_tab_table("1\tfever\n" * 5, True), is_tab_table("\tindented\n" * 5, True)
    (True, False)
    """
    lines = [line for line in head.split("\n")[: None if whole else -1] if line.strip()]
    cells = [line.split("\t") for line in lines]
    widths = {len(row) for row in cells}
    return len(lines) >= LEAST_LINES and len(widths) == 1 and widths != {1} and all(row[0].strip() for row in cells)

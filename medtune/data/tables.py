"""Rows of tables: the header, or that there is none, and the columns; csv files. Every cell becomes text.

Workbooks live in `medtune.data.workbooks`.
"""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TypeAlias

from medtune.data.decoding import BLOCK, bounded_lines, open_text
from medtune.data.records import LIKE_DATA, Row, shown_names
from medtune.errors import DataError, nearest
from medtune.limits import ROW_BYTES

Cell: TypeAlias = "str | DataError"
Grid: TypeAlias = Iterable[tuple[int, Sequence[Cell]]]
"""(row number in the file, from 1; the cells) pairs. A cell without a value to be had is its fault."""

DELIMITERS = ",\t;|"
NOTHING = ("nan", "NaN")  # what pandas writes of a missing value that has become text
SAMPLE = 50  # rows that tell a header from data, and a delimiter from another character
NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)*%?")
TITLES = re.compile(  # column names of published sets, whole
    r"(?:question|answer|response|input|output|prompt|instruction|system|history|text|content|context|title|label|id|"
    r"index|category|type|department|ask|query|chosen|rejected|explanation|exp|source|topic|subject|name|"
    r"问题?|答案?|回答|回复|提问|科室|标题|内容|指令|输入|输出|选项|解析|标签|编号|序号|类别)s?(?:[ _-]?\d{1,2})?",
    re.IGNORECASE,
)


def read_csv(
    file: BinaryIO,
    name: str,
    encoding: str | None,
    columns: Mapping[str, str] | None,
    header: bool | None = None,
    delimiter: str | None = None,
) -> Iterator[Row | DataError]:
    """Yield the rows of a csv or tsv file; origins are "file.csv:12", the line the row begins on.

    Args:
        columns, header: see `medtune.data.readers.read_data`.
        delimiter: None tells it from the first rows.

    Raises:
        DataError: wrong encoding, broken quoting, no such column. A row with more cells than the header is yielded.
    """
    csv.field_size_limit(ROW_BYTES)  # the default, 131,072 characters, is less than a long case report
    with open_text(file, name, encoding, newline="") as text:
        delimiter = delimiter or sniff_delimiter(text.read(BLOCK // 16))
        text.seek(0)
        grid = _csv_grid(csv.reader(bounded_lines(text, name), delimiter=delimiter, strict=True), name)
        yield from table_rows(grid, columns, name, lambda number, _: f"{name}:{number}", header, exact_width=True)


def sniff_delimiter(head: str) -> str:
    """The delimiter under which most of the first rows are as wide as the very first; else the comma.

    >>> sniff_delimiter("ask;answer\\nfever, cough;rest, water\\npain;ice\\n")
    ';'
    """

    def evenness(delimiter: str) -> tuple[float, int]:
        try:
            rows = list(itertools.islice(csv.reader(io.StringIO(head, newline=""), delimiter=delimiter), SAMPLE))
        except csv.Error:
            return 0, 0
        rows = rows[:-1] if len(rows) > 1 and len(head) >= BLOCK // 16 else rows  # the last may be cut
        widths = [len(row) for row in rows if row]
        if not widths or widths[0] == 1:  # commas of the sentences below it make no table of a header without one
            return 0, 0
        return widths.count(widths[0]) / len(widths), widths[0]

    return max(DELIMITERS, key=evenness)  # the comma on a tie


def cell_text(value: Any) -> str:
    """Text of a cell, as a spreadsheet shows it: 5.0 is "5", midnight is a date, nothing is "".

    >>> [cell_text(value) for value in (" 5 mg ", 5.0, 0.1 + 0.2, None, True, datetime.datetime(2024, 3, 1))]
    [' 5 mg ', '5', '0.3', '', 'TRUE', '2024-03-01']
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return format(value, ".15g")
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time()
        return value.date().isoformat() if midnight else value.isoformat(sep=" ")
    return str(value)


def column_letter(index: int) -> str:
    """Spreadsheet letter of a column counted from 0.

    >>> [column_letter(index) for index in (0, 25, 26, 701, 702)]
    ['A', 'Z', 'AA', 'ZZ', 'AAA']
    """
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def _csv_grid(reader: Any, name: str) -> Iterator[tuple[int, list[str]]]:
    start = 1
    try:
        for cells in reader:
            yield start, cells
            start = reader.line_num + 1
    except csv.Error as fault:
        raise DataError(
            f"{name}:{start}: broken csv in the row that begins here: {fault}. Check its double quotes."
        ) from fault


def table_rows(
    grid: Grid,
    columns: Mapping[str, str] | None,
    where: str,
    origin: Callable[[int, str], str],
    header: bool | None = None,
    exact_width: bool = False,
) -> Iterator[Row | DataError]:
    """Take the header off the grid, if it has one, choose columns, yield the rest; blank rows are skipped.

    Args:
        columns, header: see `medtune.data.readers.read_data`.
        where: the table, for messages.
        origin: of a row, from its number and the letter of its first column.
        exact_width: a row may not be wider than the first.
    """
    filled = ((number, cells) for number, cells in grid if not all(map(_blank, cells)))
    sample = list(itertools.islice(filled, SAMPLE + 1))
    if not sample:
        raise DataError(f"{where}: the table is empty; wanted rows, and a header above them.")
    if header is None:
        header = has_header([cells for _, cells in sample], columns)
    first = sample[0][1]
    letters = [column_letter(index) for index in range(len(first))]
    titles = [
        (cell.strip() if isinstance(cell, str) else "") or f"column {letter}"
        for cell, letter in zip(first, letters, strict=True)
    ]
    chosen = _choose(titles if header else letters, columns, where, header)
    letter = column_letter(min(chosen.values()))
    for number, cells in itertools.chain(sample[1:] if header else sample, filled):
        if exact_width and not all(map(_blank, cells[len(first) :])):
            yield DataError(
                f"{origin(number, letter)}: {len(cells)} cells under a header of {len(first)}. Quote cells that hold "
                "the delimiter."
            )
            continue
        fields = {field: cells[index] if index < len(cells) else "" for field, index in chosen.items()}
        fields = {field: "" if cell in NOTHING else cell for field, cell in fields.items()}
        fault = next((cell for cell in fields.values() if isinstance(cell, DataError)), None)
        yield fault or Row(fields, origin(number, letter))


def _blank(cell: Cell) -> bool:
    return isinstance(cell, str) and (not cell or cell.isspace())


def has_header(rows: Sequence[Sequence[Cell]], columns: Mapping[str, str] | None = None) -> bool:
    """Tell whether the first of these rows names the columns, or is data like those below it.

    It is a header if it holds a column that `columns` names, or a name that published sets use. It is data if a
    number or a sentence stands in it where the column has numbers or sentences, or a cell comes again in its column.
    Without any of these signs it is a header, as a table has one.

    >>> has_header([["ask", "answer"], ["Fever?", "Rest."]]), has_header([["Fever?", "A"], ["Pain?", "B"]])
    (True, False)
    """
    texts = [[cell if isinstance(cell, str) else "" for cell in row] for row in rows]
    first = [cell.strip() for cell in texts[0]]
    if columns is not None and any(name in first and not re.fullmatch("[A-Z]{1,3}", name) for name in columns.values()):
        return True
    if any(map(TITLES.fullmatch, first)):
        return True
    if len(texts) == 1:
        return not any(map(LIKE_DATA.search, first))
    for index, cell in enumerate(first):
        below = [row[index].strip() for row in texts[1:] if index < len(row) and row[index].strip()]
        if not cell or not below:
            continue
        if cell in below:
            return False
        for sign in (NUMBER.fullmatch, LIKE_DATA.search):
            if sign(cell) and 2 * sum(map(bool, map(sign, below))) >= len(below):
                return False
    return True


def _choose(titles: list[str], columns: Mapping[str, str] | None, where: str, header: bool) -> dict[str, int]:
    """Map field names to column indices."""
    if columns is not None:
        if not columns:
            raise DataError(f"{where}: data_columns is empty; wanted dict(input=..., output=...).")
        return {field: _find_column(wanted, titles, where, header) for field, wanted in columns.items()}
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        same = repr(twice[0]) if shown_names(titles) else "the same text"
        raise DataError(
            f"{where}: the header has {same} more than once. Rename one, or name columns by letter: "
            "data_columns=dict(input='A', output='B')."
        )
    return {title: index for index, title in enumerate(titles)}


def _find_column(wanted: str, titles: list[str], where: str, header: bool) -> int:
    """Index of a column named by its header (which wins) or its letter."""
    if titles.count(wanted) == 1:
        return titles.index(wanted)
    letters = [column_letter(index) for index in range(len(titles))]
    if wanted in titles:
        same = " and ".join(letter for letter, title in zip(letters, titles, strict=True) if title == wanted)
        raise DataError(f"{where}: the columns {same} are both named {wanted!r}. Name one by its letter.")
    if re.fullmatch("[A-Za-z]{1,3}", str(wanted)) and wanted.upper() in letters:
        return letters.index(wanted.upper())
    shown = shown_names(titles) if header else []
    known = ", ".join(f"{title!r} ({letter})" for letter, title in zip(letters[:20], shown, strict=False))
    known = known or f"columns A to {letters[-1]}, and its first row does not look like a header"
    raise DataError(f"{where}: no column {wanted!r}; it has {known}.{nearest(str(wanted), shown)}")

"""Rows of tables, xlsx and csv: find the sheet, the header and the columns; every cell becomes text."""

from __future__ import annotations

import contextlib
import csv
import datetime
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medtune.data.decoding import open_text
from medtune.data.records import Row, shown_names
from medtune.errors import DataError, nearest, printable

Grid = Iterator[tuple[int, list[str]]]
"""(row number in the file, from 1; the cells) pairs."""

DELIMITERS = ",\t;|"
MOST_UNPACKED = 4 << 30  # bytes of a workbook; XML packs to a tenth, repeated rows to a fiftieth
SMALL = 64 << 20
HIGHEST_RATIO = 200


def read_xlsx(path: Path, name: str, sheet: str | None, columns: Mapping[str, str] | None) -> Iterator[Row]:
    """Yield the rows of one sheet; the first row that is not blank is the header.

    Args:
        path: the file; `name` stands for it in origins, "MedQA2019.xlsx!DrugQA!A57".
        sheet: a sheet's name; None where there is only one.
        columns: see `medtune.data.readers.read_data`.

    Raises:
        DataError: not an xlsx file, no such sheet or column, several sheets and none named.
    """
    import openpyxl

    with _readable(name):
        _check_size(path, name)
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    with contextlib.closing(book), _readable(name):
        page = _find_sheet({page.title: page for page in book.worksheets}, sheet, name)
        page.reset_dimensions()  # some programs write a size of A1:A1, and openpyxl would believe it
        grid = enumerate(([cell_text(value) for value in cells] for cells in page.iter_rows(values_only=True)), 1)
        where = f"{name}!{printable(page.title)}"
        yield from _table(grid, columns, where, lambda number, letter: f"{where}!{letter}{number}")


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Inside, what openpyxl raises for a damaged workbook, nearly everything, is a DataError without its text."""
    try:
        yield
    except DataError:
        raise
    except Exception as fault:
        raise DataError(
            f"{name}: not a readable xlsx file ({type(fault).__name__}); it may be damaged, or locked by a password. "
            "Save it again as .xlsx without a password."
        ) from None


def _check_size(path: Path, name: str) -> None:
    """Refuse a file of a few bytes that unpacks to gigabytes."""
    with zipfile.ZipFile(path) as archive:
        size = sum(part.file_size for part in archive.infolist())
    if size > MOST_UNPACKED or (size > SMALL and size > HIGHEST_RATIO * path.stat().st_size):
        raise DataError(f"{name}: it unpacks to {size / 1e6:,.0f} MB, which no table needs. Save it as .csv instead.")


def read_csv(path: Path, name: str, encoding: str | None, columns: Mapping[str, str] | None) -> Iterator[Row]:
    """Yield the rows of a csv or tsv file with a header; origins are "file.csv:12", the line the row begins on.

    Raises:
        DataError: wrong encoding, broken quoting, a row with more cells than the header, no such column.
    """
    csv.field_size_limit(2**31 - 1)  # the default, 131,072 characters, is less than a long case report
    with open_text(path, name, encoding, newline="") as file:
        first = next((line for line in file if line.strip()), "")
        file.seek(0)
        tabbed = path.suffix.lower() in (".tsv", ".tab")
        delimiter = "\t" if tabbed else max(DELIMITERS, key=first.count)  # max keeps the comma on a tie
        grid = _csv_grid(csv.reader(file, delimiter=delimiter, strict=True), name)
        yield from _table(grid, columns, name, lambda number, _: f"{name}:{number}", exact_width=True)


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


def _find_sheet(sheets: dict[str, Any], sheet: str | None, name: str) -> Any:
    names = ", ".join(map(repr, sheets))
    if sheet is None and len(sheets) != 1:
        raise DataError(f"{name}: it has {len(sheets)} sheets, {names}. Name one: data_sheet=... or --sheet.")
    if sheet is None:
        return next(iter(sheets.values()))
    if sheet not in sheets:
        raise DataError(f"{name}: no sheet {sheet!r}; it has {names}.{nearest(sheet, sheets)}")
    return sheets[sheet]


def _csv_grid(reader: Any, name: str) -> Grid:
    start = 1
    try:
        for cells in reader:
            yield start, cells
            start = reader.line_num + 1
    except csv.Error as fault:
        raise DataError(
            f"{name}:{start}: broken csv in the row that begins here: {fault}. Check its double quotes."
        ) from fault


def _table(
    grid: Grid,
    columns: Mapping[str, str] | None,
    where: str,
    origin: Callable[[int, str], str],
    exact_width: bool = False,
) -> Iterator[Row]:
    """Take the header off the grid, choose columns by it, yield the rest; blank rows are skipped."""
    filled = ((number, cells) for number, cells in grid if any(cell.strip() for cell in cells))
    _, header = next(filled, (0, []))
    if not header:
        raise DataError(f"{where}: the table is empty; wanted a header row and rows below it.")
    chosen = _choose(header, columns, where)
    letter = column_letter(min(chosen.values()))
    for number, cells in filled:
        if exact_width and any(cell.strip() for cell in cells[len(header) :]):
            raise DataError(
                f"{origin(number, letter)}: {len(cells)} cells under a header of {len(header)}. Quote cells that hold "
                "the delimiter."
            )
        fields = {field: cells[index] if index < len(cells) else "" for field, index in chosen.items()}
        yield Row(fields, origin(number, letter))


def _choose(header: list[str], columns: Mapping[str, str] | None, where: str) -> dict[str, int]:
    """Map field names to column indices."""
    titles = [cell.strip() or f"column {column_letter(index)}" for index, cell in enumerate(header)]
    if columns is not None:
        if not columns:
            raise DataError(f"{where}: data_columns is empty; wanted dict(input=..., output=...).")
        return {field: _find_column(wanted, titles, where) for field, wanted in columns.items()}
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        same = repr(twice[0]) if shown_names(titles) else "the same text"
        raise DataError(
            f"{where}: the header has {same} more than once. Rename one, or name columns by letter: "
            "data_columns=dict(input='A', output='B')."
        )
    return {title: index for index, title in enumerate(titles)}


def _find_column(wanted: str, titles: list[str], where: str) -> int:
    """Index of a column named by its header (which wins) or its letter."""
    if titles.count(wanted) == 1:
        return titles.index(wanted)
    letters = [column_letter(index) for index in range(len(titles))]
    if wanted in titles:
        same = " and ".join(letter for letter, title in zip(letters, titles, strict=True) if title == wanted)
        raise DataError(f"{where}: the columns {same} are both named {wanted!r}. Name one by its letter.")
    if re.fullmatch("[A-Za-z]{1,3}", str(wanted)) and wanted.upper() in letters:
        return letters.index(wanted.upper())
    shown = shown_names(titles)
    known = ", ".join(f"{title!r} ({letter})" for letter, title in zip(letters[:20], shown, strict=False))
    known = known or f"columns A to {letters[-1]}, and its first row does not look like a header"
    raise DataError(f"{where}: no column {wanted!r}; it has {known}.{nearest(str(wanted), shown)}")

"""Rows of workbooks: .xlsx by openpyxl, legacy .xls by xlrd; merged cells and formulas."""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from medtune.data.records import Row
from medtune.data.tables import Cell, cell_text, column_letter, table_rows
from medtune.errors import DataError, nearest, printable
from medtune.limits import UNPACKED_FREE, UNPACKED_RATIO

MOST_UNPACKED = 4 << 30  # bytes of a workbook; XML packs to a tenth, repeated rows to a fiftieth
MOST_MERGED = 1_000_000  # cells of one sheet
BLOCK = 1 << 20
LONGEST_CELL = 1 << 16  # bytes of a cell's XML; Excel holds 32,767 characters in one
MERGE = re.compile(rb'<(?:\w+:)?mergeCell\s[^>]*?ref="([A-Z]+)(\d+):([A-Z]+)(\d+)"')
UNCACHED = re.compile(  # a cell with a formula and no value; t="str" says that an empty text is its value
    rb'<(?:\w+:)?c\s(?![^>]*t="str")[^>]*?r="([A-Z]+)(\d+)"[^>]*>\s*'
    rb"<(?:\w+:)?f(?:\s[^>]*)?(?:/>|>[^<]*</(?:\w+:)?f>)\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>)?\s*"
    rb"</(?:\w+:)?c>"
)
ERRORS = ("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!")

Place = tuple[int, int]
"""(row from 1, column from 0)"""


def read_xlsx(
    file: BinaryIO, name: str, sheet: str | None, columns: Mapping[str, str] | None, header: bool | None = None
) -> Iterator[Row | DataError]:
    """Yield the rows of one sheet; the first row that is not blank is the header, if there is one.

    The value of merged cells belongs to each of them. A formula's value is the one that the workbook holds of it; a
    formula without one, or one that gives an error, is a fault of its row.

    Args:
        file: random access; `name` stands for it in origins, "MedQA2019.xlsx!DrugQA!A57".
        sheet: a sheet's name; None where there is only one.
        columns, header: see `medtune.data.readers.read_data`.

    Raises:
        DataError: not an xlsx file, no such sheet or column, several sheets and none named.
    """
    import openpyxl

    with _readable(name, "xlsx"):
        _check_size(file, name)
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    with contextlib.closing(book), _readable(name, "xlsx"):
        page = _find_sheet({page.title: page for page in book.worksheets}, sheet, name)
        where = f"{name}!{printable(page.title)}"
        merged, uncached = _marks(file, page._worksheet_path, where)
        page.reset_dimensions()  # some programs write a size of A1:A1, and openpyxl would believe it
        grid = enumerate((list(map(cell_text, cells)) for cells in page.iter_rows(values_only=True)), 1)
        yield from table_rows(
            _marked(grid, merged, uncached, where), columns, where, lambda row, letter: f"{where}!{letter}{row}", header
        )


def read_xls(
    file: BinaryIO, name: str, sheet: str | None, columns: Mapping[str, str] | None, header: bool | None = None
) -> Iterator[Row | DataError]:
    """The same for a legacy .xls file, whose formulas always have values."""
    import xlrd

    with _readable(name, "xls"):
        book = xlrd.open_workbook(file_contents=file.read(), logfile=io.StringIO(), formatting_info=True)
        page = _find_sheet({page.name: page for page in book.sheets()}, sheet, name)
        where = f"{name}!{printable(page.name)}"
        merged = _spread(((top + 1, bottom, left, right - 1) for top, bottom, left, right in page.merged_cells), where)
        grid = ((row + 1, [_xls_text(cell, book.datemode) for cell in page.row(row)]) for row in range(page.nrows))
        yield from table_rows(
            _marked(grid, merged, set(), where), columns, where, lambda row, letter: f"{where}!{letter}{row}", header
        )


def _xls_text(cell: Any, datemode: int) -> str:
    import xlrd

    if cell.ctype == xlrd.XL_CELL_DATE:
        if 0 <= cell.value < 1:
            return str(xlrd.xldate_as_datetime(cell.value, datemode).time())
        return cell_text(xlrd.xldate_as_datetime(cell.value, datemode))
    if cell.ctype == xlrd.XL_CELL_BOOLEAN:
        return cell_text(bool(cell.value))
    if cell.ctype == xlrd.XL_CELL_ERROR:
        return str(xlrd.error_text_from_code.get(cell.value, "#N/A"))
    return cell_text(cell.value)


@contextlib.contextmanager
def _readable(name: str, kind: str) -> Iterator[None]:
    """Inside, what the library raises for a damaged workbook, nearly everything, is a DataError without its text."""
    try:
        yield
    except DataError:
        raise
    except Exception as fault:
        raise DataError(
            f"{name}: not a readable {kind} file ({type(fault).__name__}); it may be damaged, or locked by a password. "
            "Save it again as .xlsx without a password."
        ) from None


def _check_size(file: BinaryIO, name: str) -> None:
    """Refuse a file of a few bytes that unpacks to gigabytes."""
    packed = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        size = sum(part.file_size for part in archive.infolist())
    if size > MOST_UNPACKED or (size > UNPACKED_FREE and size > UNPACKED_RATIO * packed):
        raise DataError(f"{name}: it unpacks to {size / 1e6:,.0f} MB, which no table needs. Save it as .csv instead.")


def _find_sheet(sheets: dict[str, Any], sheet: str | None, name: str) -> Any:
    names = ", ".join(repr(printable(title)) for title in sheets)
    if sheet is None and len(sheets) != 1:
        raise DataError(f"{name}: it has {len(sheets)} sheets, {names}. Name one: data_sheet=... or --sheet.")
    if sheet is None:
        return next(iter(sheets.values()))
    if sheet not in sheets:
        raise DataError(f"{name}: no sheet {sheet!r}; it has {names}.{nearest(sheet, sheets)}")
    return sheets[sheet]


def _marks(file: BinaryIO, part: str, where: str) -> tuple[dict[Place, Place], set[Place]]:
    """Merged cells -> the cell that holds their value, and formulas without a value.

    openpyxl tells neither when it reads row by row, and holds fifty times the file when it does not.
    """
    merges: set[tuple[int, int, int, int]] = set()
    uncached: set[Place] = set()
    with zipfile.ZipFile(file) as archive, archive.open(part) as xml:
        tail = b""
        while block := xml.read(BLOCK):
            text = tail + block
            merges |= {
                (int(top), int(bottom), _column(left), _column(right))
                for left, top, right, bottom in MERGE.findall(text)
            }
            uncached |= {(int(row), _column(letters)) for letters, row in UNCACHED.findall(text)}
            tail = text[-LONGEST_CELL:]
    return _spread(sorted(merges), where), uncached


def _column(letters: bytes) -> int:
    index = 0
    for letter in letters[:4]:
        index = index * 26 + letter - 64
    return index - 1


def _spread(merges: Iterable[tuple[int, int, int, int]], where: str) -> dict[Place, Place]:
    """From (top, bottom, left, right), each included, to every cell but the first -> the first."""
    merged: dict[Place, Place] = {}
    for top, bottom, left, right in merges:
        if len(merged) + (bottom - top + 1) * (right - left + 1) > MOST_MERGED:
            raise DataError(f"{where}: over {MOST_MERGED:,} merged cells, which no table has. Unmerge them.")
        merged |= {(row, column): (top, left) for row in range(top, bottom + 1) for column in range(left, right + 1)}
    return {place: first for place, first in merged.items() if place != first}


def _marked(
    grid: Iterable[tuple[int, list[str]]], merged: dict[Place, Place], uncached: set[Place], where: str
) -> Iterator[tuple[int, list[Cell]]]:
    """Fill merged cells, and put faults where a formula has no value."""
    firsts = set(merged.values())
    columns_of: dict[int, list[int]] = {}
    for row, column in sorted(merged):
        columns_of.setdefault(row, []).append(column)
    values: dict[Place, Cell] = {}
    for number, texts in grid:
        cells: list[Cell] = [
            _value(text, (number, column), uncached, where) if text in ("", *ERRORS) else text
            for column, text in enumerate(texts)
        ]
        for column in columns_of.get(number, ()):
            cells += [""] * (column + 1 - len(cells))
            first = merged[number, column]
            cells[column] = values.get(first, "") if first[0] < number else cells[first[1]]
        values |= {(number, column): cell for column, cell in enumerate(cells) if (number, column) in firsts}
        yield number, cells


def _value(text: str, place: Place, uncached: set[Place], where: str) -> Cell:
    cell = f"{where}!{column_letter(place[1])}{place[0]}"
    if text:
        return DataError(f"{cell}: the error {text} instead of a value. Repair the formula, or clear the cell.")
    if place in uncached:
        return DataError(
            f"{cell}: a formula whose value the file does not hold. Open it in a spreadsheet program and save it again."
        )
    return text

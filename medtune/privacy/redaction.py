"""Rows: where identifiers stand in their fields, and the same rows with them replaced, into a file of the same form."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from medtune.data.records import LIKE_DATA
from medtune.data.row_file import new_file, new_rows, require_new
from medtune.errors import DataError, UsageError
from medtune.privacy.identifiers import Finder, find, full_names, label_of
from medtune.privacy.spans import KINDS, Span
from medtune.privacy.surrogates import Surrogates

TABLES = (".csv", ".tsv", ".xlsx", ".txt")
SUFFIXES = (".jsonl", ".json", *TABLES)

MISSED = (
    "names with no title, label or signature beside them; places smaller than an address; rare diseases, jobs "
    "and events "
    "that single a person out; text in pictures"
)
"""What no recogniser here finds, for reports."""
TOO_DEEP = "a row is nested too deep to be searched."


MOST_KEYS = 64
Found = Mapping[tuple[str, str], list[Span]]
"""(text, label) -> its spans."""


class Text(NamedTuple):
    """One string or whole number of a row."""

    field: str
    """Where it stands: "messages[0].content"; a key that looks like data is shown as "key 3"."""
    value: str
    label: str
    """What its key says of it, see `label_of`."""


def texts(fields: Any) -> Iterator[Text]:
    """Every string and whole number in a row, also nested ones, and every key that looks like data."""
    yield from _texts(fields, "", "")


def _texts(value: Any, field: str, label: str) -> Iterator[Text]:
    if isinstance(value, Mapping):
        keys = tuple(str(key) for key in value)
        for number, (key, child) in enumerate(zip(keys, value.values(), strict=True), 1):
            shown = f"key {number}" if _is_data(key) else key
            path = f"{field}.{shown}" if field else shown
            if _is_data(key):
                yield Text(f"{path} (key)", key, "")
            yield from _texts(child, path, label_of(key, keys[:MOST_KEYS]))
    elif isinstance(value, (list, tuple)):
        for number, child in enumerate(value):
            yield from _texts(child, f"{field}[{number}]", label)
    elif (text := _as_text(value)) is not None:
        yield Text(field or "text", text, label)


@lru_cache(maxsize=4096)
def _is_data(key: str) -> bool:
    """Whether a key may be a value: of an object keyed by patient, or of a table without a header."""
    return bool(LIKE_DATA.search(key) or find(key))


def _as_text(value: Any) -> str | None:
    """A string as it is, a whole number in digits (also 13812345678.0, of a spreadsheet); None for the rest."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return None


def scan(fields: Any, kinds: Collection[str] = KINDS, more: Finder | None = None) -> Iterator[tuple[Text, Span]]:
    """Yield the identifiers of a row; a name found in one field is looked for in the others.

    Args:
        fields: of a `Row`.
        kinds: the ones wanted.
        more: another finder to ask, such as `medtune.privacy.presidio`.

    Raises:
        DataError: the row is nested too deep to be searched.
    """
    try:
        found = _find_all(fields, more)
    except RecursionError:
        raise DataError(TOO_DEEP) from None
    for text, spans in found:
        yield from ((text, span) for span in spans if span.kind in kinds)


def _find_all(fields: Any, more: Finder | None) -> list[tuple[Text, list[Span]]]:
    """Each text of a row that holds identifiers, with them."""
    found = [(text, find(text.value, text.label, (), more)) for text in texts(fields)]
    names = {name for text, spans in found for name in full_names(text.value, spans)}
    if names and len(found) > 1:
        found = [(text, find(text.value, text.label, names, more)) for text, _ in found]
    return [(text, spans) for text, spans in found if spans]


class Redactor:
    """Replaces identifiers in rows, and counts what it replaced.

    Args:
        surrogates: makes the replacements.
        kinds: the ones to replace.
        style: "surrogate" or "tag".
        more: another finder to ask.
    """

    def __init__(
        self,
        surrogates: Surrogates,
        kinds: Collection[str] = KINDS,
        style: str = "surrogate",
        more: Finder | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._surrogates = surrogates
        self._kinds = kinds
        self._style = style
        self._more = more

    def __call__(self, fields: Any, origin: str) -> Any:
        """The row with every identifier of the kinds replaced: in strings, whole numbers and keys, also nested ones.

        Raises:
            DataError: the row is nested too deep to be searched.
        """
        try:
            spans = {(text.value, text.label): found for text, found in _find_all(fields, self._more)}
            return self._replace(fields, "", spans, origin)
        except RecursionError:
            raise DataError(TOO_DEEP) from None

    def _replace(self, value: Any, label: str, spans: Found, origin: str) -> Any:
        if isinstance(value, Mapping):
            keys = tuple(str(key) for key in value)
            replaced: dict[str, Any] = {}
            for key, child in zip(keys, value.values(), strict=True):
                new_key = self._text(key, "", spans, origin) if _is_data(key) else key
                while new_key in replaced:
                    new_key += "_"
                replaced[new_key] = self._replace(child, label_of(key, keys[:MOST_KEYS]), spans, origin)
            return replaced
        if isinstance(value, (list, tuple)):
            return [self._replace(child, label, spans, origin) for child in value]
        text = _as_text(value)
        if text is None or (new := self._text(text, label, spans, origin)) == text:
            return value
        return int(new) if not isinstance(value, str) and new.isdigit() and new[0] != "0" else new

    def _text(self, text: str, label: str, spans: Found, origin: str) -> str:
        wanted = [span for span in spans.get((text, label), ()) if span.kind in self._kinds]
        self.counts.update(span.kind for span in wanted)
        return self._surrogates.replace(text, wanted, origin, self._style) if wanted else text


@contextmanager
def new_like(path: Path, force: bool = False) -> Iterator[Callable[[Any], None]]:
    """Write rows one by one to a file of the form that its suffix names: all of them or no file; its owner's alone.

    Raises:
        UsageError: another suffix, or a file that exists and is not to be replaced.
        DataError: a row that does not fit into a table: nested, or with other fields than the first.
    """
    suffix = path.suffix.lower()
    require_new(path, force, SUFFIXES)
    if suffix not in TABLES:
        with new_rows(path, force, private=True) as write:
            yield write
        return
    with new_file(path, private=True) as temporary:
        opened = _workbook(temporary) if suffix == ".xlsx" else _table(temporary, suffix)
        with opened as write:
            yield write


@contextmanager
def _table(path: Path, suffix: str) -> Iterator[Callable[[Any], None]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if suffix == ".tsv" else ",", lineterminator="\n")
        header: list[str] = []

        def write(fields: Any) -> None:
            cells = _cells(fields, header or (["text"] if suffix == ".txt" else []))
            try:
                if suffix == ".txt":
                    file.write(" ".join(cells[0].splitlines()) + "\n")
                    return
                if not header:
                    header.extend(fields)
                    writer.writerow(header)
                writer.writerow(cells)
            except UnicodeEncodeError:
                raise DataError("a row holds half of a surrogate pair, which no text file can. Repair it.") from None

        yield write


@contextmanager
def _workbook(path: Path) -> Iterator[Callable[[Any], None]]:
    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    header: list[str] = []

    def write(fields: Any) -> None:
        cells = _cells(fields, header)
        if not header:
            header.extend(fields)
            sheet.append(_inert(sheet, header))
        sheet.append(_inert(sheet, cells))

    yield write
    book.save(path)


def _inert(sheet: Any, cells: list[str]) -> list[Any]:
    """Cells of text, also where it begins with "="."""
    from openpyxl.cell import WriteOnlyCell

    inert = []
    for value in cells:
        cell = WriteOnlyCell(sheet, value)
        cell.data_type = "s"
        inert.append(cell)
    return inert


def _cells(fields: Any, header: list[str]) -> list[str]:
    """Values of a flat row, as text; its fields must be those of the header, if there is one."""
    names = list(fields) if isinstance(fields, Mapping) else []
    if not names or (header and names != header):
        raise DataError("a row has other fields than this form of file can hold. Write to .jsonl instead.")
    if any(isinstance(value, (Mapping, list, tuple)) for value in fields.values()):
        raise DataError("a row has nested fields, which a table cannot hold. Write to .jsonl instead.")
    return ["" if value is None else str(value) for value in fields.values()]


def parse_kinds(words: str | None, option: str) -> frozenset[str]:
    """Kinds from "name,phone". Raises UsageError naming the option and the kinds there are."""
    chosen = frozenset(filter(None, (word.strip() for word in (words or "").split(","))))
    if unknown := sorted(chosen - KINDS.keys()):
        raise UsageError(f"{option}: no kind {unknown[0]!r}; there are {', '.join(KINDS)}.")
    return chosen

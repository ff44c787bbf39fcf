"""One open file, of whatever container: told from its content first, by its suffix second, and read to rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from medtune.data.archives import (
    COMPRESSED,
    Bounds,
    Source,
    held,
    is_workbook,
    kind_of,
    member_names,
    members,
    suffix_of,
    unpacked,
)
from medtune.data.decoding import BLOCK, codec_of, head_of
from medtune.data.json_rows import as_row, read_json
from medtune.data.records import Row, shown_names
from medtune.data.tables import read_csv
from medtune.data.texts import is_tab_table, read_text
from medtune.data.workbooks import read_xls, read_xlsx
from medtune.data.xml_rows import read_xml
from medtune.errors import DataError, nearest

XLSX = (".xlsx", ".xlsm")
CSV = (".csv", ".tsv", ".tab")
JSON = (".json", ".jsonl", ".ndjson")
TEXT = (".txt", ".md")
XML = (".xml", ".cnxml")
ARROW = (".parquet", ".arrow")
PACKED = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz")
SUFFIXES = (*XLSX, ".xls", *CSV, *JSON, *TEXT, *XML, *ARROW, *PACKED)

BATCH = 1024  # rows of a parquet file that are Python objects at once
HEAD = BLOCK // 16  # bytes that tell what a text is

NOT_DATA = ("readme", "license", "dataset_info", "dataset_infos")
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
JSON_BEGINS = re.compile(r'\s*(\{\s*"|\[\s*\{|\[[ \t\r]*\n\s*["\[{])')
XML_BEGINS = re.compile(r"\s*<(\?xml|!--|[A-Za-z][\w:.-]*[\s>/])")

Item = Row | DataError
"""A row, or the fault of one that cannot be read, after which reading goes on."""


@dataclass(frozen=True)
class Reading:
    """How to read a data set; see `read_data`."""

    sheet: str | None = None
    columns: Mapping[str, str] | None = None
    split: str = "train"
    encoding: str | None = None
    header: bool | None = None
    documents: str = "line"
    subset: str | None = None
    streaming: bool = False
    level: int = 0
    """Archives around what is being read."""


def read_source(source: Source, how: Reading, bounds: Bounds) -> Iterator[Item]:
    """Rows of an open file, told from its content."""
    kind = kind_of(source)
    if kind in COMPRESSED:
        _check_level(source, how)
        with unpacked(source, kind, bounds) as inner:
            tar = kind_of(inner) == "tar"  # one archive, not two
            yield from read_source(inner, how if tar else replace(how, level=how.level + 1), bounds)
    elif kind == "tar":
        yield from _read_archive(source, kind, how, bounds)
    elif kind == "text":
        yield from _read_plain(source, how)
    else:
        with held(source) as here:
            yield from _read_binary(here, kind, how, bounds)


def _read_binary(source: Source, kind: str, how: Reading, bounds: Bounds) -> Iterator[Item]:
    file, name = source.file, source.name
    if kind == "zip" and not (source.suffix in XLSX or is_workbook(source)):
        yield from _read_archive(source, kind, how, bounds)
    elif kind == "zip":
        yield from read_xlsx(file, name, how.sheet, how.columns, how.header)
    elif kind == "xls":
        yield from read_xls(file, name, how.sheet, how.columns, how.header)
    else:
        _refuse_sheet(name, how)
        yield from pick(_read_arrow(file, name, kind), how.columns)


def _read_plain(source: Source, how: Reading) -> Iterator[Item]:
    """Rows of a text file: JSON, a table, XML or documents."""
    file, name, suffix = source.file, source.name, source.suffix
    if suffix in (*XLSX, ".xls", *ARROW, ".zip", ".tar"):
        raise DataError(
            f"{name}: not a readable {suffix[1:]} file; it may be damaged, cut short or another kind of file under "
            "this name. Save it again."
        )
    _refuse_sheet(name, how)
    codec = codec_of(file, how.encoding)
    head = head_of(file, codec, HEAD)
    whole = file.tell() < HEAD
    _check_head(head, name, suffix)
    if head.lstrip().startswith("<?xml") or (suffix in XML and XML_BEGINS.match(head)):
        yield from pick(read_xml(file, name), how.columns)
    elif JSON_BEGINS.match(head) or suffix in JSON:
        yield from pick(read_json(file, name, codec), how.columns)
    elif suffix in CSV or (suffix == ".txt" and is_tab_table(head, whole)):
        delimiter = "\t" if suffix != ".csv" and "\t" in head else None
        yield from read_csv(file, name, codec, how.columns, how.header, delimiter)
    elif suffix in TEXT:
        yield from pick(read_text(file, name, codec, how.documents), how.columns)
    else:
        raise DataError(f"{name}: cannot read a file that ends in {suffix!r}. Known are {', '.join(SUFFIXES)}.")


def _check_head(head: str, name: str, suffix: str) -> None:
    if not head.strip() and suffix not in CSV:
        raise DataError(f"{name}: the file is empty.")
    if head.startswith("version https://git-lfs"):
        raise DataError(f"{name}: a Git LFS pointer, not the data itself. Run `git lfs pull` where it came from.")
    if "\0" in head:
        line = head.count("\n", 0, head.index("\0")) + 1
        raise DataError(f"{name}:{line}: not text: a zero byte. If it is UTF-16, name it: --encoding utf-16-le.")


def _refuse_sheet(name: str, how: Reading) -> None:
    if how.sheet is not None:
        raise DataError(f"{name}: only xlsx and xls files have sheets; leave out the sheet {how.sheet!r}.")


def _read_archive(source: Source, kind: str, how: Reading, bounds: Bounds) -> Iterator[Item]:
    _check_level(source, how)
    names = data_names(member_names(source, kind, bounds), source.name)
    wanted = set(files_of_split(names, how.split, source.name))
    for member in members(source, kind, wanted, bounds):
        yield from going_on(read_source(member, replace(how, level=how.level + 1), bounds))


def _check_level(source: Source, how: Reading) -> None:
    if how.level > 1:
        raise DataError(f"{source.name}: an archive in an archive in an archive. Unpack the outer one yourself.")


def going_on(items: Iterator[Item]) -> Iterator[Item]:
    """Yield, rather than raise, the fault that ends one file of several."""
    try:
        yield from items
    except DataError as fault:
        yield fault


def data_names(names: Iterable[str], where: str) -> list[str]:
    """Those names, of a folder or an archive, that are of data files."""
    known = [name for name in names if suffix_of(name) in SUFFIXES and not name.lower().endswith(".md")]
    known = [name for name in known if not re.search(r"(^|/)(\.|__MACOSX/)", name)]
    known = [name for name in known if name.rpartition("/")[2].lower().split(".")[0] not in NOT_DATA]
    if not known:
        raise DataError(f"{where}: no data file in it; known are {', '.join(SUFFIXES)}.")
    return known


def files_of_split(names: list[str], split: str, where: str) -> list[str]:
    """Keep the files named after the split, so that a folder's test file is never trained on; all if none is named."""
    words = {name: set(re.split("[^a-z]+", name.lower())) for name in names}
    split_of = {
        name: next((kind for kind, known in SPLIT_WORDS.items() if words[name] & set(known)), "") for name in names
    }
    wanted = next((kind for kind, known in SPLIT_WORDS.items() if split in known), split)
    chosen = [name for name in names if split_of[name] == wanted]
    if not chosen and wanted == "train":
        chosen = [name for name in names if not split_of[name]]
    if not chosen:
        there = sorted(set(split_of.values()) - {""}) or ["no file named after a split"]
        raise DataError(f"{where}: no file of the split {split!r}; it has {', '.join(there)}.")
    return chosen


def _read_arrow(file: BinaryIO, name: str, kind: str) -> Iterator[Item]:
    """Rows of a parquet file, or of an arrow file in the stream form (that of `datasets`) or the file form."""
    import pyarrow
    import pyarrow.parquet

    try:
        if kind == "parquet":
            batches: Iterable[Any] = pyarrow.parquet.ParquetFile(file).iter_batches(BATCH)
        elif file.read(6) == b"ARROW1":
            reader = pyarrow.ipc.open_file(file)
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            file.seek(0)
            batches = pyarrow.ipc.open_stream(file)
        pieces = (batch[start : start + BATCH] for batch in batches for start in range(0, len(batch), BATCH))
        for index, value in enumerate(value for piece in pieces for value in _values(piece)):
            yield as_row(value, f"{name}[{index}]")
    except DataError:
        raise
    except Exception:  # pyarrow takes lengths from the file as they stand: MemoryError, OverflowError, ...
        raise DataError(f"{name}: not a readable {kind} file; it may be cut short.") from None


def _values(batch: Any) -> list[Any]:
    batch.validate(full=True)  # a damaged offset would be read, wherever it leads
    return list(batch.to_pylist())


def pick(rows: Iterable[Item], columns: Mapping[str, str] | None) -> Iterator[Item]:
    """Keep and rename the fields that `columns` names."""
    return iter(rows) if columns is None else _picked(rows, columns)


def _picked(rows: Iterable[Item], columns: Mapping[str, str]) -> Iterator[Item]:
    for row in rows:
        if isinstance(row, DataError):
            yield row
            continue
        missing = next((key for key in columns.values() if key not in row.fields), None)
        if missing is None:
            yield Row({field: row.fields[key] for field, key in columns.items()}, row.origin)
        else:
            known = [name[:24] for name in shown_names(row.fields)[:12]]
            there = f"the row has {', '.join(map(repr, known)) or 'others'}.{nearest(str(missing), known)}"
            yield DataError(f"{row.origin}: no key {missing!r}; {there}")

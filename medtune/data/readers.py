"""Read data files: whatever the shape, `Row`s come out, each with its origin.

Tables live in `medtune.data.tables`. JSON is told from its content, never from its suffix: published sets hold JSON
arrays named .jsonl and JSON lines named .json or .txt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medtune.build import checked_by
from medtune.data.decoding import open_text
from medtune.data.records import Row, shown_names
from medtune.data.tables import read_csv, read_xlsx
from medtune.errors import DataError, UsageError, nearest, printable

ASSETS = Path(__file__).resolve().parent.parent / "assets"
EMBEDDED = {"medication-qa": ASSETS / "medication_qa.xlsx"}

HUB_FILE = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)/(.+)")  # one file of a hub data set

XLSX = (".xlsx", ".xlsm")
CSV = (".csv", ".tsv", ".tab")
JSON_OR_TEXT = (".json", ".jsonl", ".txt")
ARROW = (".parquet", ".arrow")
SUFFIXES = (*XLSX, *CSV, *JSON_OR_TEXT, *ARROW)

NOT_DATA = ("readme", "license", "dataset_info", "dataset_infos")
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def require_data(data_path: str | Path, **_: Any) -> None:
    """Check that a data set's name is a file, a folder, an embedded name, or could be a hub's. Reads nothing.

    Raises:
        DataError: it is none of these; names what lies beside it.
    """
    name, path = str(data_path), Path(data_path).expanduser()
    if name in EMBEDDED or HUB_FILE.fullmatch(name) or path.exists():
        return
    if path.suffix.lower() in (*SUFFIXES, ".xls") or not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name):
        raise DataError(f"{name}: no such file or folder.{_neighbours(path)}")


@checked_by(require_data)
def read_data(
    data_path: str | Path,
    *,
    sheet: str | None = None,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    encoding: str | None = None,
) -> Rows:
    """Name the rows of a data set; they are read when they are looped over.

    Args:
        data_path: a file (xlsx, csv, tsv, json, jsonl, txt, parquet, arrow), a folder of such files, the name of an
            embedded data set ("medication-qa"), a Hugging Face hub id, or one file of it
            (hf://datasets/OWNER/NAME/FILE). Plain text is one document a line, `{"text": ...}`; so are JSON strings.
            A JSON object of objects is read as rows keyed by id.
        sheet: the sheet of an xlsx file; needed if it has several.
        columns: conversation field -> column, for example `dict(input="A", output="Answer")`: a header's name, else a
            letter; in JSON the key. Rows then hold these fields and no others.
        split: of a hub data set, or of a folder whose files are named after splits (train, validation, test).
        encoding: of text files; None is UTF-8.

    Raises:
        DataError: what is missing or broken, with its place and what there is instead.
    """
    require_data(data_path)
    return Rows(lambda: _read(data_path, sheet, columns, split, encoding))


class Rows:
    """Rows of a data set; every loop over them reads it anew."""

    def __init__(self, read: Callable[[], Iterator[Row]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[Row]:
        return self._read()


def _read(
    data_path: str | Path, sheet: str | None, columns: Mapping[str, str] | None, split: str, encoding: str | None
) -> Iterator[Row]:
    if hub_file := HUB_FILE.fullmatch(str(data_path)):
        return _read_file(_download(*hub_file.groups()), str(data_path), sheet, columns, encoding)
    path = EMBEDDED.get(str(data_path)) or Path(data_path).expanduser()
    if path.is_file():
        return _read_file(path, _shown(path.name), sheet, columns, encoding)
    if path.is_dir():
        return _read_folder(path, sheet, columns, split, encoding)
    return _read_hub(data_path, columns, split)


def rows_of(
    dataset: Any, split: str = "train", columns: Mapping[str, str] | None = None, name: str = ""
) -> Iterator[Row]:
    """Yield the rows of a list, a `datasets.Dataset`, or one split of a `DatasetDict`.

    A `Row` among them keeps its origin; the others get "name[train]:0", counted from 0.
    """
    if isinstance(dataset, Mapping):
        if split not in dataset:
            raise DataError(f"no split {split!r}; the data set has {', '.join(map(repr, dataset))}.")
        dataset = dataset[split]
    name = name or getattr(getattr(dataset, "info", None), "dataset_name", None) or "dataset"
    rows = (_row(value, f"{name}[{split}]:{index}") for index, value in enumerate(dataset))
    return _pick(rows, columns)


def conversation_columns(input_column: str | None, output_column: str | None) -> dict[str, str] | None:
    """Build `columns` of `read_data` from a command's two options; None without them.

    Raises:
        UsageError: only one is given.
    """
    if input_column is None and output_column is None:
        return None
    if input_column is None or output_column is None:
        missing = "--input-column" if input_column is None else "--output-column"
        raise UsageError(f"{missing} is missing: name both columns, of the questions and of the answers.")
    return {"input": input_column, "output": output_column}


def _read_file(
    path: Path, name: str, sheet: str | None, columns: Mapping[str, str] | None, encoding: str | None
) -> Iterator[Row]:
    suffix = path.suffix.lower()
    if sheet is not None and suffix not in XLSX:
        raise DataError(f"{name}: only xlsx files have sheets; leave out the sheet {sheet!r}.")
    if suffix in XLSX:
        return read_xlsx(path, name, sheet, columns)
    if suffix in CSV:
        return read_csv(path, name, encoding, columns)
    if suffix in JSON_OR_TEXT:
        return _pick(_read_json_or_text(path, name, encoding), columns)
    if suffix in ARROW:
        return _pick(_read_arrow(path, name), columns)
    advice = "Save it as .xlsx." if suffix == ".xls" else f"Known are {', '.join(SUFFIXES)}."
    raise DataError(f"{name}: cannot read a file that ends in {suffix!r}. {advice}")


def _read_folder(
    folder: Path, sheet: str | None, columns: Mapping[str, str] | None, split: str, encoding: str | None
) -> Iterator[Row]:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():  # Dataset.save_to_disk
        yield from _read_saved_dataset(folder, columns, split)
        return
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix.lower() in SUFFIXES]
    names = {path.relative_to(folder).as_posix(): path for path in files if path.stem.lower() not in NOT_DATA}
    names = {name: path for name, path in names.items() if not re.search(r"(^|/)\.", name)}
    if not names:
        raise DataError(f"{folder}: no data file in this folder; known are {', '.join(SUFFIXES)}.")
    for name in _files_of_split(list(names), split, folder):
        yield from _read_file(names[name], _shown(name), sheet, columns, encoding)


def _read_saved_dataset(folder: Path, columns: Mapping[str, str] | None, split: str) -> Iterator[Row]:
    """Rows of what `Dataset.save_to_disk` wrote."""
    from datasets import load_from_disk

    try:
        yield from rows_of(load_from_disk(str(folder)), split, columns, name=_shown(folder.name))
    except DataError:
        raise
    except Exception as fault:  # datasets and pyarrow each raise their own
        raise DataError(f"{folder}: not a data set that `datasets` can load ({type(fault).__name__}).") from None


def _shown(name: str) -> str:
    """A file's name as messages have it, on one line."""
    return printable(name).replace("\n", "\\n")


def _files_of_split(names: list[str], split: str, folder: Path) -> list[str]:
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
        raise DataError(f"{folder}: no file of the split {split!r}; the folder has {', '.join(there)}.")
    return chosen


def _read_hub(data_path: str | Path, columns: Mapping[str, str] | None, split: str) -> Iterator[Row]:
    """Load a hub data set; never runs code of its repository (datasets 4 and later cannot)."""
    name = str(data_path)
    from datasets import load_dataset

    try:
        dataset = load_dataset(name, split=split)
    except Exception as fault:  # datasets, the hub client and its HTTP library each raise their own
        reason = " ".join(str(fault).split())[:160]
        raise DataError(
            f"{name}: no such file or folder, and no Hugging Face data set could be loaded by that name "
            f"({type(fault).__name__}: {reason})."
        ) from fault
    return rows_of(dataset, split, columns, name=name)


def _download(repo: str, file: str) -> Path:
    """Local copy of one file of a Hugging Face data set."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, file, repo_type="dataset"))
    except Exception as fault:  # the hub client and its HTTP library each raise their own
        reason = " ".join(str(fault).split())[:160]
        raise DataError(f"hf://datasets/{repo}/{file}: not to be had ({type(fault).__name__}: {reason}).") from fault


def _neighbours(path: Path) -> str:
    """Return " Did you mean ...?" for what lies beside a path that does not exist."""
    if not path.parent.is_dir():
        return f" The folder {str(path.parent)!r} does not exist (looked from {Path.cwd()})."
    return nearest(path.name, [*(child.name for child in path.parent.iterdir()), *EMBEDDED])


def _read_json_or_text(path: Path, name: str, encoding: str | None) -> Iterator[Row]:
    kind = _kind(path, name, encoding)
    with open_text(path, name, encoding) as file:
        if kind == "whole":
            yield from _whole(_parse(file.read(), name, 1), name)
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                line = line.rstrip("\n")
                value = line if kind == "text" else _parse(line, name, number)
                yield _row(value, f"{name}:{number}")


def _kind(path: Path, name: str, encoding: str | None) -> str:
    """Tell from the first two lines: "text" (a document a line), "lines" (of JSON) or "whole" (one JSON value)."""
    with open_text(path, name, encoding) as file:
        filled = (line.strip() for line in file if line.strip())
        first, second = next(filled, ""), next(filled, "")
    if not first:
        raise DataError(f"{name}: the file is empty.")
    if first.startswith("version https://git-lfs"):
        raise DataError(f"{name}: a Git LFS pointer, not the data itself. Run `git lfs pull` where it came from.")
    if path.suffix.lower() == ".txt" and not (first.startswith(('{"', "[{")) or first == "["):
        return "text"
    if first.startswith("["):
        return "whole"
    if second:  # the second line of a pretty-printed object begins with a key
        return "whole" if first.startswith("{") and not second.startswith("{") and first[-1] != "}" else "lines"
    value = _parse(first, name, 1)
    return "whole" if isinstance(value, dict) and value and _all_objects(value) else "lines"


def _all_objects(value: dict[str, Any]) -> bool:
    return all(isinstance(child, dict) for child in value.values())


def _whole(value: Any, name: str) -> Iterator[Row]:
    """Rows of a JSON array, or of an object whose values are all objects; origins count from 0, "file.json[12]"."""
    if isinstance(value, dict) and not _all_objects(value):
        yield _row(value, f"{name}[0]")
        return
    for index, child in enumerate(value.values() if isinstance(value, dict) else value):
        yield _row(child, f"{name}[{index}]")


def _parse(text: str, name: str, line: int) -> Any:
    """Parse JSON that begins on `line`; NaN and Infinity are not JSON."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as fault:
        place = f"{name}:{line + fault.lineno - 1}:{fault.colno}"
        raise DataError(f"{place}: not valid JSON: {fault.msg}. Fix that place of the file.") from None
    except (ValueError, RecursionError) as fault:
        raise DataError(f"{name}:{line}: not valid JSON: {fault}.") from None


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"it holds {constant}")


def _read_arrow(path: Path, name: str) -> Iterator[Row]:
    """Rows of a parquet file, or of an arrow file in the stream form (that of `datasets`) or the file form."""
    import pyarrow
    import pyarrow.parquet

    try:
        if path.suffix.lower() == ".parquet":
            batches: Iterable[Any] = pyarrow.parquet.ParquetFile(path).iter_batches()
        elif path.read_bytes()[:6] == b"ARROW1":
            reader = pyarrow.ipc.open_file(str(path))
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            batches = pyarrow.ipc.open_stream(str(path))
        values = (value for batch in batches for value in batch.to_pylist())
        for index, value in enumerate(values):
            yield _row(value, f"{name}[{index}]")
    except (pyarrow.ArrowException, OSError, ValueError):
        raise DataError(f"{name}: not a readable {path.suffix[1:]} file; it may be cut short.") from None


def _row(value: Any, origin: str) -> Row:
    if isinstance(value, Row):
        return value
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, Mapping):
        raise DataError(f"{origin}: wanted an object or text, got a {type(value).__name__}.")
    return Row(value, origin)


def _pick(rows: Iterator[Row], columns: Mapping[str, str] | None) -> Iterator[Row]:
    """Keep and rename the fields that `columns` names."""
    for row in rows:
        if columns is None:
            yield row
            continue
        for key in columns.values():
            if key not in row.fields:
                known = [name[:24] for name in shown_names(row.fields)[:12]]
                there = f"the row has {', '.join(map(repr, known)) or 'others'}.{nearest(str(key), known)}"
                raise DataError(f"{row.origin}: no key {key!r}; {there}")
        yield Row({field: row.fields[key] for field, key in columns.items()}, row.origin)

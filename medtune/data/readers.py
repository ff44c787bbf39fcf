"""Read data sets, a file, a folder or a hub's: whatever the container, `Row`s come out, each with its origin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medtune.build import checked_by
from medtune.data import hubs
from medtune.data.archives import Bounds, Source, suffix_of
from medtune.data.cache import files_identity
from medtune.data.catalog import located
from medtune.data.containers import SUFFIXES, Item, Reading, data_names, files_of_split, going_on, pick, read_source
from medtune.data.json_rows import as_row
from medtune.data.records import Row
from medtune.data.texts import DOCUMENTS
from medtune.errors import DataError, UsageError, nearest, printable

ASSETS = Path(__file__).resolve().parent.parent / "assets"
EMBEDDED = {
    "answer-pairs": ASSETS / "answer_pairs.jsonl",
    "medication-labels": ASSETS / "medication_labels.jsonl",
    "medication-pairs": ASSETS / "medication_pairs.jsonl",
    "medication-qa": ASSETS / "medication_qa.xlsx",
    "medical-documents": ASSETS / "medical_documents.jsonl",
    "self-cognition": ASSETS / "self_cognition.json",
}


def require_data(data_path: str | Path, documents: str = "line", **_: Any) -> None:
    """Check that a data set's name is a file, a folder, an embedded name, or could be a hub's. Reads nothing.

    Raises:
        DataError: it is none of these; names what lies beside it.
    """
    if documents not in DOCUMENTS:
        raise DataError(f"documents={documents!r}; known are {', '.join(DOCUMENTS)}.{nearest(documents, DOCUMENTS)}")
    data_path = located(data_path)[0]
    name, path = str(data_path), Path(data_path).expanduser()
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{name}: neither a file nor a folder; a pipe or a device cannot be read twice. Save it first.")
    if name in EMBEDDED or hubs.HUB_FILE.fullmatch(name) or hubs.on_modelscope(name) or path.exists():
        return
    if name.startswith(hubs.MODELSCOPE):
        raise DataError(f"{name}: wanted {hubs.MODELSCOPE}ORGANISATION/NAME.")
    if suffix_of(path.name) in SUFFIXES or not hubs.HUB_ID.fullmatch(name):
        raise DataError(f"{name}: no such file or folder.{_neighbours(path)}")


@checked_by(require_data)
def read_data(
    data_path: str | Path,
    *,
    sheet: str | None = None,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    encoding: str | None = None,
    header: bool | None = None,
    documents: str = "line",
    subset: str | None = None,
    streaming: bool = False,
) -> Rows:
    """Name the rows of a data set; they are read when they are looped over.

    Args:
        data_path: a file (json, jsonl, csv, tsv, xlsx, xls, parquet, arrow, txt, md, xml of MedQuAD or CNXML), one
            compressed (gz, bz2, xz), an archive (zip, tar) or a folder of such files, the name of an embedded data set
            ("medication-qa"), one of the catalogue (catalog:NAME, see `catalog`), a Hugging Face hub id, one file of it
            (hf://datasets/OWNER/NAME/FILE), or modelscope://ORG/NAME. JSON strings are rows `{"text": ...}`, as
            documents of plain text are. A JSON object of objects is read as rows keyed by id.
        sheet: the sheet of a workbook; needed if it has several.
        columns: conversation field -> column, for example `dict(input="A", output="Answer")`: a header's name, else a
            letter; in JSON the key. Rows then hold these fields and no others.
        split: of a hub data set, or of a folder or archive whose files are named after splits (train, validation,
            test).
        encoding: of text files; None tells UTF-8, UTF-16 and UTF-32 with a mark, and Chinese GB18030 from the content.
        header: of tables: True, the first row names the columns; False, it is data, and the columns are named by
            letter; None tells it from the rows.
        documents: of plain text: one a "line", one a "paragraph" (up to a blank line), or the "file".
        subset: of a hub data set, the name of its configuration.
        streaming: read a Hugging Face data set as it comes, without a copy on this disk.

    Raises:
        DataError: what is missing or broken, with its place and what there is instead.
    """
    require_data(data_path, documents)
    data_path, columns = located(data_path, columns)
    how = Reading(sheet, columns, split, encoding, header, documents, subset, streaming)
    local = EMBEDDED.get(str(data_path)) or Path(data_path).expanduser()
    return Rows(lambda: _read(data_path, how), lambda: files_identity(local, repr(how)))


class Rows:
    """Rows of a data set; every loop over them reads it anew.

    Args:
        read: begins to read.
        identity: see the method.
    """

    def __init__(self, read: Callable[[], Iterator[Item]], identity: Callable[[], Any] | None = None) -> None:
        self._read = read
        self._identity = identity

    def identity(self) -> Any:
        """What tells these rows from all others, as JSON: hashes of files, and how they are read; None if unknown."""
        return self._identity() if self._identity else None

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows; the first that cannot be read is raised."""
        return _raising(self._read())

    def each(self, on_fault: Callable[[DataError], None]) -> Iterator[Row]:
        """Yield the rows that can be read; tell `on_fault` of each other.

        Raises:
            DataError: reading cannot go on: the file's form, or its compression, is broken from there.
        """
        for item in self._read():
            if isinstance(item, DataError):
                on_fault(item)
            else:
                yield item


def _raising(items: Iterable[Item]) -> Iterator[Row]:
    for item in items:
        if isinstance(item, DataError):
            raise item
        yield item


def _read(data_path: str | Path, how: Reading) -> Iterator[Item]:
    name = str(data_path)
    if hub_file := hubs.HUB_FILE.fullmatch(name):
        return _read_file(hubs.download_file(*hub_file.groups()), name, how)
    path = EMBEDDED.get(name) or Path(data_path).expanduser()
    if path.is_file():
        return _read_file(path, _shown(path.name), how)
    if path.is_dir():
        return _read_folder(path, how)
    if modelscope := hubs.on_modelscope(name):
        return _read_folder(hubs.download_modelscope(modelscope), how)
    return rows_of(hubs.load_hub(name, how.split, how.subset, how.streaming), how.split, how.columns, name=name)


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
    rows = (as_row(value, f"{name}[{split}]:{index}") for index, value in enumerate(dataset))
    return _raising(pick(rows, columns))


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


def _read_file(path: Path, name: str, how: Reading) -> Iterator[Item]:
    try:
        file = path.open("rb")
    except OSError as fault:
        raise DataError(f"{name}: cannot be opened ({fault.strerror}).") from None
    with file:
        yield from read_source(Source(name, file, suffix_of(path.name)), how, Bounds(name, path.stat().st_size))


def _read_folder(folder: Path, how: Reading) -> Iterator[Item]:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():  # Dataset.save_to_disk
        yield from _read_saved_dataset(folder, how)
        return
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    for name in files_of_split(data_names(files, str(folder)), how.split, str(folder)):
        if _leads_outside(files[name], folder):
            yield DataError(f"{_shown(name)}: a link to a file outside of the folder. Name that file, or copy it.")
        else:
            yield from going_on(_read_file(files[name], _shown(name), how))


def _leads_outside(path: Path, folder: Path) -> bool:
    """Tell a link that leaves the folder; the hub's cache links to `blobs` beside it, which is where its files are."""
    target, root = path.resolve(), folder.resolve()
    if target.is_relative_to(root):
        return False
    return not (target.parent.name == "blobs" and target.parent.parent in root.parents)


def _read_saved_dataset(folder: Path, how: Reading) -> Iterator[Row]:
    """Rows of what `Dataset.save_to_disk` wrote."""
    from datasets import load_from_disk

    try:
        yield from rows_of(load_from_disk(str(folder)), how.split, how.columns, name=_shown(folder.name))
    except DataError:
        raise
    except Exception as fault:  # datasets and pyarrow each raise their own
        raise DataError(f"{folder}: not a data set that `datasets` can load ({type(fault).__name__}).") from None


def _neighbours(path: Path) -> str:
    """Return " Did you mean ...?" for what lies beside a path that does not exist."""
    if not path.parent.is_dir():
        return f" The folder {str(path.parent)!r} does not exist (looked from {Path.cwd()})."
    return nearest(path.name, [*(child.name for child in path.parent.iterdir()), *EMBEDDED])


def _shown(name: str) -> str:
    """A file's name as messages have it, on one line."""
    return printable(name).replace("\n", "\\n")

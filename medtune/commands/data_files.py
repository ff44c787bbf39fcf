"""What the data commands share: the options that say how to read files, a progress bar, and output as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from medtune.data.readers import Rows

Item = TypeVar("Item")


def add_rows_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `add_source_arguments`, --input-column, --output-column and --map-fn."""
    add_source_arguments(parser)
    parser.add_argument("--input-column", metavar="COLUMN", help="column of the questions: header, letter or JSON key")
    parser.add_argument("--output-column", metavar="COLUMN", help="column of the answers")
    parser.add_argument("--map-fn", metavar="NAME", help="format of the rows (`medtune list-dataset-format`)")


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """--dataset-info, --sheet, --header, --documents, --encoding, --split, --subset, --streaming."""
    parser.add_argument(
        "--dataset-info", metavar="JSON", help="registry of names (default: ./dataset_info.json, ./data)"
    )
    parser.add_argument("--sheet", help="sheet of an xlsx file (needed if there are several)")
    parser.add_argument("--header", choices=("yes", "no"), help="a table's first row names columns (default: told)")
    parser.add_argument("--documents", default="line", metavar="WHAT", help="of a txt file: line, paragraph or file")
    parser.add_argument("--encoding", help="of a text file (default: told from the content)")
    parser.add_argument("--split", default="train", help="of a folder or a hub data set (default: train)")
    parser.add_argument("--subset", metavar="NAME", help="of a hub data set: its configuration")
    parser.add_argument("--streaming", action="store_true", help="read a hub data set without a copy on this disk")


def add_tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    """--tokenizer and --template."""
    parser.add_argument(
        "--tokenizer",
        default="med-llama-tiny",
        metavar="NAME",
        help="counts the tokens: a folder, a hub id, or none (default: the embedded med-llama-tiny)",
    )
    parser.add_argument("--template", metavar="NAME", help="prompt template (default: the tokenizer's own)")


def reading_options(args: argparse.Namespace) -> dict[str, Any]:
    """What the options say, as arguments of `medtune.data.mix.read_sources`."""
    from medtune.data.readers import conversation_columns

    return {
        "dataset_info": args.dataset_info,
        "sheet": args.sheet,
        "columns": conversation_columns(args.input_column, args.output_column),
        "split": args.split,
        "encoding": args.encoding,
        "header": {"yes": True, "no": False, None: None}[args.header],
        "documents": args.documents,
        "subset": args.subset,
        "streaming": args.streaming,
    }


def open_rows(args: argparse.Namespace, file: str) -> Rows:
    """Rows of a file, folder, registry name or hub id, read as the options say."""
    from medtune.data.mix import read_sources

    return read_sources(file, **reading_options(args))


def counter(args: argparse.Namespace) -> Any:
    """What counts tokens (`medtune.data.lengths.token_counter`), or None for `--tokenizer none`."""
    if args.tokenizer == "none":
        return None
    from medtune.data.lengths import token_counter
    from medtune.models.load import load_tokenizer

    return token_counter(load_tokenizer(args.tokenizer), args.template)


def progress(items: Iterable[Item], what: str) -> Iterator[Item]:
    """The same items, with a bar on stderr if it is a terminal."""
    from tqdm import tqdm

    yield from tqdm(items, desc=what, unit=" rows", disable=None, leave=False)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def require_other(out: Path, *files: str | Path) -> None:
    """Check that an output is not one of the inputs, which are read again while it is written.

    Raises:
        UsageError: it is.
    """
    from medtune.errors import UsageError

    for file in map(Path, files):
        if out.exists() and file.exists() and out.samefile(file):
            raise UsageError(f"{out}: the output is an input too. Name another file.")

"""Convert a table or any known data file to XTuner's structured JSONL.

Each line is {"conversation": [{"system": ..., "input": ..., "output": ...}]}. The format of rows is detected, or named
with --map-fn; of a table, name the two columns, by header or by letter.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medtune.commands.reading import add_reading_arguments, read

EXAMPLES = """\
  medtune data convert MedQA2019.xlsx medqa.jsonl --sheet DrugQA --input-column A --output-column D
  medtune data convert dialogues.csv dialogues.jsonl --input-column ask --output-column answer --encoding gb18030
  medtune data convert sharegpt.jsonl structured.json --system "You are a careful doctor." --drop-empty"""

NUM_PLACES_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE OUT and how to read it."""
    parser.add_argument("file", metavar="FILE", help="data file, folder, embedded name or hub id")
    parser.add_argument("out", metavar="OUT", type=Path, help="a .jsonl file, or .json for one array")
    add_reading_arguments(parser)
    parser.add_argument("--drop-empty", action="store_true", help="leave out rows with an empty answer")
    parser.add_argument("-f", "--force", action="store_true", help="replace OUT")


def main(args: argparse.Namespace) -> int:
    """Convert one file."""
    from medtune.data.structured import has_empty_answer, write_structured
    from medtune.errors import DataError

    conversations = read(args)
    empty = [c.origin for c in conversations if has_empty_answer(c)]
    places = ", ".join(empty[:NUM_PLACES_SHOWN]) + (", ..." if len(empty) > NUM_PLACES_SHOWN else "")
    if empty and not args.drop_empty:
        raise DataError(
            f"{len(empty)} of {len(conversations)} rows have an empty answer: {places}. "
            "Fill them in, or leave them out with --drop-empty."
        )
    kept = [c for c in conversations if not has_empty_answer(c)]
    if not kept:
        raise DataError(f"{args.file}: every answer is empty; nothing to write.")
    write_structured({args.out: kept}, args.force)
    print(f"{args.out}: {len(kept)} conversations from {args.file}")
    if empty:
        print(f"left out {len(empty)} rows with an empty answer: {places}")
    return 0

"""Convert any known data file to a shape, one JSON line a row.

Shapes: conversation (XTuner, the default), messages (OpenAI), sharegpt, alpaca, preference, kto, text. The format of
rows is detected, or named with --map-fn; of a table, name the two columns, by header or by letter. A row that the
shape has no place for stops the conversion, with a line that says what would be lost.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from medtune.commands.data_files import add_rows_arguments, open_rows, print_json, progress

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable

    from medtune.data.records import Record

EXAMPLES = """\
  medtune data convert MedQA2019.xlsx medqa.jsonl --sheet DrugQA --input-column A --output-column D
  medtune data convert dialogues.csv dialogues.jsonl --input-column ask --output-column answer --encoding gb18030
  medtune data convert sharegpt.jsonl structured.json --system "You are a careful doctor." --drop-empty
  medtune data convert oaast_rm_zh.json pairs.jsonl --to preference"""

NUM_PLACES_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE OUT, how to read it and what to write."""
    parser.add_argument("file", metavar="FILE", help="data file, folder, embedded name, registry name or hub id")
    parser.add_argument("out", metavar="OUT", type=Path, help="a .jsonl file, or .json for one array")
    parser.add_argument("--to", default="conversation", metavar="SHAPE", help="shape of OUT (default: conversation)")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    add_rows_arguments(parser)
    parser.add_argument("--system", default="", help="system text for rows that bring none of their own")
    parser.add_argument("--drop-empty", action="store_true", help="leave out rows with an empty answer")
    parser.add_argument("-f", "--force", action="store_true", help="replace OUT")


def main(args: argparse.Namespace) -> int:
    """Convert one file."""
    from collections import Counter

    from medtune.data.row_file import new_rows
    from medtune.data.shapes import named_shape
    from medtune.data.structured import mapped_records
    from medtune.errors import DataError, printable

    named_shape(args.to)
    skipped: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    _, records = mapped_records(open_rows(args, args.file), args.map_fn, args.system, skipped, formats)
    with new_rows(args.out, args.force) as write:
        num_kept, num_empty, places = _write(progress(records, "convert"), args, write)
        if num_empty and not args.drop_empty:
            raise DataError(
                f"{num_empty} of {num_kept + num_empty} rows have an empty answer: {places}. "
                "Fill them in, or leave them out with --drop-empty."
            )
        if not num_kept:
            raise DataError(f"{args.file}: {_nothing(num_empty, skipped)}; nothing to write.")
    if args.json:
        left_out = {**skipped, **({"an empty answer": num_empty} if num_empty else {})}
        print_json({"file": str(args.out), "rows": num_kept, "formats": dict(formats), "left_out": left_out})
        return 0
    kind = {"preference": "pairs", "text": "texts"}.get(args.to, "conversations")
    print(f"{args.out}: {num_kept} {kind} from {printable(args.file)}")
    if len(formats) > 1:
        print(f"rows by format: {', '.join(f'{name} {count}' for name, count in formats.most_common())}")
    if num_empty:
        print(f"left out {num_empty} rows with an empty answer: {places}")
    for reason, count in sorted(skipped.items()):
        print(f"left out {count} rows: {reason}")
    return 0


def _write(
    records: Iterable[Record], args: argparse.Namespace, write: Callable[[dict[str, object]], None]
) -> tuple[int, int, str]:
    """Write the records that are not empty; the numbers of kept and empty ones, and where some of these are."""
    from medtune.data.shapes import answers_only, to_shape
    from medtune.data.structured import has_empty_answer

    num_kept = num_empty = 0
    places: list[str] = []
    for record in records:
        if has_empty_answer(answers_only(record, args.to)):
            num_empty += 1
            if len(places) < NUM_PLACES_SHOWN:
                places.append(record.origin)
            continue
        write(to_shape(record, args.to))
        num_kept += 1
    shown = [*places, *(["..."] if num_empty > NUM_PLACES_SHOWN else [])]
    return num_kept, num_empty, ", ".join(shown)


def _nothing(num_empty: int, skipped: Counter[str]) -> str:
    if num_empty:
        return "every answer is empty"
    return f"no row to convert ({', '.join(skipped)})" if skipped else "no rows"

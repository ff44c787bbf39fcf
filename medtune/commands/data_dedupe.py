"""Leave out rows that repeat an earlier one, exactly or nearly.

Exact: the same words, whatever the case, width, spaces and punctuation. Near: a share of at least --threshold of the
runs of 3 words (5 characters of Chinese) in common, by MinHash. The first of several stays; rows keep their columns.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.commands.data_files import add_rows_arguments, open_rows, print_json, progress, require_other

if TYPE_CHECKING:
    from medtune.data.similar import Twin

EXAMPLES = """\
  medtune data dedupe train.jsonl unique.jsonl
  medtune data dedupe train.jsonl unique.jsonl --threshold 0.9 --report pairs.jsonl
  medtune data dedupe drugs.csv unique.jsonl --exact-only --by question"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE OUT, what a duplicate is, and how to read the file."""
    parser.add_argument("file", metavar="FILE", help="data file, folder, registry name or hub id")
    parser.add_argument("out", metavar="OUT", type=Path, help="the rows that stay: a .jsonl or .json file")
    parser.add_argument("--threshold", type=float, default=0.8, help="similarity of a near duplicate (default: 0.8)")
    parser.add_argument("--exact-only", action="store_true", help="look for exact duplicates alone")
    parser.add_argument("--by", choices=("row", "question"), default="row", help="what is compared (default: row)")
    parser.add_argument("--seed", type=int, default=0, help="of the hashes (default: 0)")
    parser.add_argument("--report", type=Path, metavar="OUT", help="write the pairs, by place, to this .jsonl or .json")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("-f", "--force", action="store_true", help="replace OUT and the report")
    add_rows_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Write the rows that stay."""
    import contextlib

    from medtune.data.row_file import new_rows
    from medtune.data.similar import find_twins
    from medtune.data.words import texts

    require_other(args.out, args.file)
    counts: Counter[str] = Counter()
    with contextlib.ExitStack() as files:
        keep = files.enter_context(new_rows(args.out, args.force))
        report = files.enter_context(new_rows(args.report, args.force)) if args.report else None
        fields: list[Any] = []  # of the row that is being compared

        def pairs() -> Any:
            for text in progress(texts(open_rows(args, args.file), args.map_fn), "dedupe"):
                fields[:] = [text.row.fields]
                yield text.row.origin, text.question if args.by == "question" else text.whole

        for twin in find_twins(pairs(), None if args.exact_only else args.threshold, args.seed):
            counts[twin.kind if twin else "kept"] += 1
            if twin is None:
                keep(fields[0])
            elif report:
                report(_as_dict(twin))
    total = counts.total()
    told = {"rows": total, "kept": counts["kept"], "exact": counts["exact"], "near": counts["near"]}
    if args.json:
        print_json(told)
    else:
        print(f"{args.out}: {told['kept']} of {total} rows; left out {told['exact']} exact, {told['near']} near")
    return 0


def _as_dict(twin: Twin) -> dict[str, Any]:
    return {**twin._asdict(), "similarity": round(twin.similarity, 3)}

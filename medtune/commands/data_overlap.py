"""Look for test data in training data: the same questions, and runs of 13 words in common.

A Chinese character counts as a word. Runs that more than 10 training rows hold are boilerplate and not counted. The
exit code is 0 if at most --max-overlap rows of each test set share something (default: none), else 2.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from medtune.commands.data_files import add_rows_arguments, open_rows, print_json, progress

if TYPE_CHECKING:
    from medtune.data.overlap import Overlap
    from medtune.data.readers import Rows

EXAMPLES = """\
  medtune data overlap train.jsonl test.jsonl
  medtune data overlap train.jsonl cmb.json mmlu/ --max-overlap 1% --json"""

NUM_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """TRAIN TEST ..., what is too much, and how to read them."""
    parser.add_argument("train", metavar="TRAIN", help="training data: a file, folder, registry name or hub id")
    parser.add_argument("tests", metavar="TEST", nargs="+", help="test or benchmark data")
    parser.add_argument(
        "--max-overlap", default="0", metavar="LIMIT", help="test rows that may share: 10, or 0.5%% (default: 0)"
    )
    parser.add_argument("--test-map-fn", metavar="NAME", help="format of the test rows (default: detected)")
    parser.add_argument("--test-split", help="of a test folder or hub data set (default: test, if it has one)")
    parser.add_argument("--all", action="store_true", help=f"list every place, not {NUM_SHOWN} of a test set")
    parser.add_argument("--json", action="store_true", help="print counts and places as JSON")
    add_rows_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Compare and print."""
    from medtune.data.doctor import parse_limit
    from medtune.data.overlap import find_overlap
    from medtune.data.words import texts

    passes = parse_limit(args.max_overlap, "--max-overlap")
    train = progress(texts(open_rows(args, args.train), args.map_fn), "train")
    tests = [progress(texts(_open_test(args, name), args.test_map_fn), name) for name in args.tests]
    told = dict(zip(args.tests, find_overlap(train, tests), strict=True))
    passed = all(passes(overlap.count(), overlap.num_rows) for overlap in told.values())
    if args.json:
        print_json({"passed": passed, "tests": {name: _as_dict(overlap) for name, overlap in told.items()}})
    else:
        for name, overlap in told.items():
            _print(name, overlap, args.all)
    return 0 if passed else 2


def _open_test(args: argparse.Namespace, name: str) -> Rows:
    """Rows of a test set: of the split "test", or of a folder that has none, of all its files."""
    from medtune.data.mix import read_sources
    from medtune.errors import DataError

    def rows(split: str) -> Rows:
        return read_sources(name, dataset_info=args.dataset_info, encoding=args.encoding, split=split)

    if args.test_split is not None:
        return rows(args.test_split)
    try:
        next(iter(rows("test")), None)
    except DataError:
        return rows("train")
    return rows("test")


def _as_dict(told: Overlap) -> dict[str, Any]:
    return {
        "rows": told.num_rows,
        "exact": told.count("exact"),
        "runs": told.count("run"),
        "half_covered": told.count(covered=0.5),
        "too_short_for_runs": told.num_short,
        "boilerplate_runs": told.num_boilerplate,
        "places": [{**row._asdict(), "covered": round(row.covered, 3)} for row in told.shared],
    }


def _print(name: str, told: Overlap, everything: bool) -> None:
    from medtune.errors import printable

    counts = _as_dict(told)
    share = told.count() / max(told.num_rows, 1)
    print(
        f"{printable(name)}: {told.count()} of {told.num_rows} rows ({share:.1%}) "
        "share something with the training data: "
        f"{counts['exact']} the question, {counts['runs']} a run of 13 words; {counts['half_covered']} by half or more"
    )
    if told.num_short or told.num_boilerplate:
        print(f"  {told.num_short} rows too short for runs; {told.num_boilerplate} runs of boilerplate not counted")
    shown = told.shared if everything else sorted(told.shared, key=lambda row: -row.covered)[:NUM_SHOWN]
    for row in shown:
        print(printable(f"  {row.origin}: {row.kind}, {row.covered:.0%}, as {row.like}"))
    if len(told.shared) > len(shown):
        print(f"  ... {len(told.shared) - len(shown)} more; --all lists them")

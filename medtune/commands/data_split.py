"""Split a data file into train and test by question, or by a field of the rows.

Rows whose questions are the same but for case, spaces and punctuation stay together, so that nothing tested was
trained on; with --group-by, rows of the same patient, document or whatever the field tells. --stratify-by gives both
parts the same shares of a field's values. Writes FILE-train.jsonl and FILE-test.jsonl in XTuner's structure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medtune.commands.data_files import add_rows_arguments, open_rows, print_json, progress

if TYPE_CHECKING:
    from medtune.data.records import Conversation
    from medtune.data.split import Split

EXAMPLES = """\
  medtune data split medqa.jsonl --ratio 7:3 --seed 0
  medtune data split MedQA2019.xlsx --input-column Question --output-column Answer --out-dir data
  medtune data split visits.jsonl --group-by patient_id --stratify-by department"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, the ratio, and how to read it."""
    parser.add_argument("file", metavar="FILE", help="data file, folder, embedded name or hub id")
    parser.add_argument("--ratio", default="7:3", help="train to test, as 7:3 (the default) or as a share, 0.7")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same split (default: 0)")
    parser.add_argument("--group-by", metavar="FIELD", help="keep rows of one value together (default: the question)")
    parser.add_argument("--stratify-by", metavar="FIELD", help="split each value of this field by the same ratio")
    parser.add_argument("--out-dir", type=Path, default=Path(), metavar="DIR", help="default: the current folder")
    parser.add_argument("--system", default="", help="system text for rows that bring none of their own")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    add_rows_arguments(parser)
    parser.add_argument("-f", "--force", action="store_true", help="replace the two files")


def main(args: argparse.Namespace) -> int:
    """Split one file."""
    from medtune.data.split import normalise, parse_ratio, question_of
    from medtune.data.structured import has_empty_answer, map_rows, write_structured
    from medtune.errors import DataError, printable

    ratio = parse_ratio(args.ratio)
    conversations, _ = map_rows(progress(open_rows(args, args.file), "split"), args.map_fn, args.system)
    if not conversations:
        raise DataError(f"{args.file}: no rows.")
    train, test, repeated = _split(args, conversations, ratio)
    if not train or not test:
        groups = f"values of {args.group_by!r}" if args.group_by else "questions"
        raise DataError(
            f"{args.file}: {len(conversations)} rows with {len(conversations) - repeated} different {groups} cannot "
            f"be split {args.ratio}; a part would be empty."
        )
    stem = Path(args.file).name.removesuffix(Path(args.file).suffix)
    paths = [args.out_dir / f"{stem}-{part}.jsonl" for part in ("train", "test")]
    write_structured(dict(zip(paths, (train, test), strict=True)), args.force)

    straddling = {normalise(question_of(c)) for c in train} & {normalise(question_of(c)) for c in test}
    trained_answers = {normalise(m.content) for c in train for m in c.messages if m.role == "assistant"}
    shared = [
        c for c in test if any(m.role == "assistant" and normalise(m.content) in trained_answers for m in c.messages)
    ]
    empty = sum(map(has_empty_answer, conversations))
    if args.json:
        parts = {
            "train": {"file": str(paths[0]), "rows": len(train)},
            "test": {"file": str(paths[1]), "rows": len(test)},
        }
        counts = {"repeated": repeated, "in_both": len(straddling), "shared_answers": len(shared), "empty": empty}
        print_json({**parts, **counts})
        return 0
    print(f"{printable(str(paths[0]))}: {len(train)} rows ({len(train) / len(conversations):.1%})")
    print(f"{printable(str(paths[1]))}: {len(test)} rows ({len(test) / len(conversations):.1%})")
    grouped = f"rows that share a {args.group_by} with another" if args.group_by else "repeated questions"
    print(f"{grouped}: {repeated} surplus rows; {len(straddling)} questions stand in both parts")
    print(f"shared answers: {len(shared)} test rows have an answer that also stands in train")
    if empty:
        print(f"empty answers: {empty} rows (`medtune data convert --drop-empty` leaves them out)")
    return 0


def _split(args: argparse.Namespace, conversations: Sequence[Conversation], ratio: float) -> Split:
    """By question, or by the fields that the options name."""
    from medtune.data.split import Split, normalise, question_of, split_by_field, split_by_question

    if not args.group_by and not args.stratify_by:
        return split_by_question(conversations, ratio, args.seed)
    values = {field: _values(args, field) for field in (args.group_by, args.stratify_by) if field}
    if args.group_by:
        groups = [values[args.group_by][c.origin] for c in conversations]
    else:
        groups = [normalise(question_of(c)) for c in conversations]
    strata = [values[args.stratify_by][c.origin] for c in conversations] if args.stratify_by else None
    sides = split_by_field(groups, ratio, args.seed, strata)
    train = [conversation for conversation, is_train in zip(conversations, sides, strict=True) if is_train]
    test = [conversation for conversation, is_train in zip(conversations, sides, strict=True) if not is_train]
    return Split(train, test, len(conversations) - len(set(groups)))


def _values(args: argparse.Namespace, field: str) -> dict[str, str]:
    """A field's value in each row, by origin."""
    from collections.abc import Mapping

    from medtune.data.records import shown_names
    from medtune.errors import DataError, nearest

    found: dict[str, str] = {}
    every_field = argparse.Namespace(**{**vars(args), "input_column": None, "output_column": None})
    for row in open_rows(every_field, args.file):
        value = row.fields.get(field) if isinstance(row.fields, Mapping) else None
        if value is None or not str(value).strip():
            known = nearest(field, shown_names(row.fields)) if isinstance(row.fields, Mapping) else ""
            raise DataError(f"{row.origin}: no value in the field {field!r}; every row needs one to split by.{known}")
        found[row.origin] = str(value)
    return found

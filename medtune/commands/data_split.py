"""Split a data file into train and test by question.

Rows whose questions are the same but for case, spaces and punctuation stay together, so that nothing tested was
trained on. Writes FILE-train.jsonl and FILE-test.jsonl in XTuner's structure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medtune.commands.reading import add_reading_arguments, read

EXAMPLES = """\
  medtune data split medqa.jsonl --ratio 7:3 --seed 0
  medtune data split MedQA2019.xlsx --input-column Question --output-column Answer --out-dir data"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, the ratio, and how to read it."""
    parser.add_argument("file", metavar="FILE", help="data file, folder, embedded name or hub id")
    parser.add_argument("--ratio", default="7:3", help="train to test, as 7:3 (the default) or as a share, 0.7")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same split (default: 0)")
    parser.add_argument("--out-dir", type=Path, default=Path(), metavar="DIR", help="default: the current folder")
    add_reading_arguments(parser)
    parser.add_argument("-f", "--force", action="store_true", help="replace the two files")


def main(args: argparse.Namespace) -> int:
    """Split one file."""
    from medtune.data.split import normalise, parse_ratio, question_of, split_by_question
    from medtune.data.structured import has_empty_answer, write_structured
    from medtune.errors import DataError

    ratio = parse_ratio(args.ratio)
    conversations = read(args)
    train, test, repeated = split_by_question(conversations, ratio, args.seed)
    if not train or not test:
        raise DataError(
            f"{args.file}: {len(conversations)} rows with {len(conversations) - repeated} different questions cannot "
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
    print(f"{paths[0]}: {len(train)} rows ({len(train) / len(conversations):.1%})")
    print(f"{paths[1]}: {len(test)} rows ({len(test) / len(conversations):.1%})")
    print(f"repeated questions: {repeated} surplus rows; {len(straddling)} questions stand in both parts")
    print(f"shared answers: {len(shared)} test rows have an answer that also stands in train")
    if empty := sum(map(has_empty_answer, conversations)):
        print(f"empty answers: {empty} rows (`medtune data convert --drop-empty` leaves them out)")
    return 0

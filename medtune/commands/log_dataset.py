"""Show how a config's first training sample is encoded."""

from __future__ import annotations

import argparse

EXAMPLES = """  medtune log-dataset ./my_config.py
  medtune log-dataset ./my_config.py --show masked_text"""

CHOICES = ("text", "masked_text", "input_ids", "labels", "all")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG, overrides, --show."""
    parser.usage = f"{parser.prog} CONFIG [NAME=VALUE ...] [options]"
    parser.add_argument("words", metavar="CONFIG", nargs="+", help="config file or name, and settings")
    parser.add_argument("--show", choices=CHOICES, default="text", help="masked_text shows the trained tokens alone")
    parser.add_argument("--index", type=int, default=0, help="which sample (default: 0)")


def main(args: argparse.Namespace) -> int:
    """Print the sample."""
    from medtune.commands import load_config
    from medtune.engine.train import prepare_inputs
    from medtune.errors import UsageError, printable

    inputs = prepare_inputs(load_config(args.words))
    samples, tokenizer = inputs.train_dataset.samples, inputs.tokenizer
    if not 0 <= args.index < len(samples):
        raise UsageError(f"--index {args.index}: the data set has samples 0 to {len(samples) - 1}.")
    sample = samples[args.index]
    ids, labels = sample["input_ids"].tolist(), sample["labels"].tolist()
    views = {
        "text": lambda: tokenizer.decode(ids),
        "masked_text": lambda: tokenizer.decode([label for label in labels if label >= 0]),
        "input_ids": lambda: str(ids),
        "labels": lambda: str(labels),
    }
    for name in views if args.show == "all" else [args.show]:
        print(f"#### {name} of sample {args.index} ({sample['origin']})\n{printable(views[name]())}")
    return 0

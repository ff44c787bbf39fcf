"""Check a config's data set: read, map, render and encode every row, and report."""

from __future__ import annotations

import argparse

EXAMPLES = """  medtune check-custom-dataset ./my_config.py
  medtune check-custom-dataset ./my_config.py data_path=./questions.xlsx"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG and overrides."""
    parser.usage = f"{parser.prog} CONFIG [NAME=VALUE ...] [options]"
    parser.add_argument("words", metavar="CONFIG", nargs="+", help="config file or name, and settings")


def main(args: argparse.Namespace) -> int:
    """Print the report."""
    from medtune.commands import load_config
    from medtune.engine.train import prepare_inputs

    inputs = prepare_inputs(load_config(args.words))
    for line in inputs.train_dataset.report.lines():
        print(line)
    print("the data set is ready to train on")
    return 0

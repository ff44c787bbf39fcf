"""Encode a config's data ahead of training, in parallel, into the cache; tell what became of every row."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medtune.data.pipeline import TrainingData

EXAMPLES = """\
  medtune data prepare ./my_config.py
  medtune data prepare ./my_config.py max_length=4096 overflow=split
  medtune data prepare ./my_config.py overwrite_cache=True num_proc=8 --json"""

WANTED = ("tokenizer", "train_dataset", "val_dataset")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG, overrides, --json."""
    parser.usage = f"{parser.prog} CONFIG [NAME=VALUE ...] [options]"
    parser.add_argument("words", metavar="CONFIG", nargs="+", help="config file or name, and settings")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def main(args: argparse.Namespace) -> int:
    """Prepare the training and the validation data, and print their reports."""
    import json

    from medtune.build import build, check, raise_faults
    from medtune.commands import load_config
    from medtune.compat import transformers_without_torch
    from medtune.errors import ConfigError

    values = load_config(args.words, WANTED).values
    missing = [f"the config has no {name!r}" for name in WANTED[:2] if not values.get(name)]
    transformers_without_torch()
    raise_faults(missing + check({name: values[name] for name in WANTED if name in values}))
    memo: dict[int, object] = {}
    data = {name: build(values[name], memo) for name in WANTED[1:] if values.get(name)}
    if not all(hasattr(found, "report") for found in data.values() if found is not None):
        raise ConfigError("data prepare is for data sets of type build_dataset; this config makes its own.")
    told = {name: found for name, found in data.items() if found is not None}
    if args.json:
        print(json.dumps({name: _as_dict(found) for name, found in told.items()}, ensure_ascii=False))
        return 0
    for name, found in told.items():
        where = f"kept in {found.folder}" if found.folder else "not kept: it is small, or data_cache is False"
        print("\n".join([name, *(f"  {line}" for line in found.report.lines()), f"  {where}"]))
    return 0


def _as_dict(data: TrainingData) -> dict[str, Any]:
    report = data.report
    return {**vars(report), "encoded": vars(report.encoded), "folder": str(data.folder or "")}

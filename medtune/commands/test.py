"""Measure a checkpoint on the validation data of a config.

The data is what training would validate with: the file of val_data_path, or the part that val_ratio splits off.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """  medtune test ./my_config.py --checkpoint work_dirs/my_config/epoch_3.pth val_ratio=0.1
  medtune test ./my_config.py --checkpoint work_dirs/my_config/iter_500.pth val_data_path=./test.jsonl --work-dir out"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG, overrides, --checkpoint, --work-dir."""
    parser.usage = f"{parser.prog} CONFIG --checkpoint PTH [NAME=VALUE ...] [options]"
    parser.add_argument("words", metavar="CONFIG", nargs="+", help="config file or name, and settings")
    parser.add_argument("--checkpoint", metavar="PTH", required=True, help="a checkpoint folder, such as epoch_3.pth")
    parser.add_argument("--work-dir", help="write eval_results.json there (default: nothing is written)")


def main(args: argparse.Namespace) -> int:
    """Print the metrics."""
    from medtune.commands import load_config
    from medtune.engine.evaluate import evaluate_checkpoint
    from medtune.files import write_json

    metrics = evaluate_checkpoint(load_config(args.words), Path(args.checkpoint))
    width = max(map(len, metrics))
    for name, value in metrics.items():
        print(f"{name:<{width}}  {value:.6g}")
    if args.work_dir:
        folder = Path(args.work_dir)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_json(folder / "eval_results.json", {**metrics, "checkpoint": args.checkpoint})
        print(f"written: {folder / 'eval_results.json'}")
    return 0

"""Train a config, or check it without training.

CONFIG is a file or a name from `medtune list-cfg`. Settings of its PART 1 may be given anywhere on the line as
name=value, values deeper in it as name.key=value; they take effect before the config runs, so whatever depends on
them follows.

NPROC_PER_NODE=N trains in N processes; on several nodes give each one NNODES, NODE_RANK and ADDR (of node 0) too.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medtune.config import Config

EXAMPLES = """  medtune train ./my_config.py
  medtune train med_llama_tiny_lora_medqa_e3 lr=1e-3 max_epochs=1
  medtune train ./my_config.py data_path=./questions.xlsx "data_columns=dict(input='A', output='D')" --check
  medtune train ./my_config.py --resume auto
  NPROC_PER_NODE=2 medtune train ./my_config.py"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG, overrides and the options of a run."""
    parser.usage = f"{parser.prog} CONFIG [NAME=VALUE ...] [options]"
    parser.add_argument("words", metavar="CONFIG", nargs="*", help="config file or name, and settings")
    parser.add_argument(
        "--cfg-options", metavar="NAME=VALUE", nargs="+", default=[], help="settings, as XTuner has them"
    )
    parser.add_argument("--work-dir", help="where logs and checkpoints go (default: work_dirs/NAME)")
    parser.add_argument("--seed", type=int, help="the same as seed=N")
    parser.add_argument(
        "--resume",
        metavar="PATH|auto",
        nargs="?",
        const="auto",
        help="continue from the newest checkpoint (auto), or from one that is named; later ones are moved aside",
    )
    parser.add_argument(
        "--resume-anyway", action="store_true", help="though settings or data differ; keeps the checkpoint's lr"
    )
    parser.add_argument("--overwrite", action="store_true", help="move an earlier run in the work dir aside")
    parser.add_argument("--check", action="store_true", help="check config and data, show a sample, train nothing")


def main(args: argparse.Namespace) -> int:
    """Train."""
    from medtune import launch
    from medtune.commands import load_config

    layout = None if args.check else launch.wanted(os.environ)
    if layout is not None:
        return launch.launch(args.typed, layout)
    launch.end_with_launcher()
    overrides = [f"seed={args.seed}"] if args.seed is not None else []
    words, resume = _resume_target(args)
    config = load_config([*words, *args.cfg_options, *overrides])
    work_dir = Path(args.work_dir or config.values.get("work_dir") or f"work_dirs/{config.name}")
    if args.check:
        return _check(config)
    from medtune.engine.train import train

    runner = train(config, work_dir, resume, args.resume_anyway, args.overwrite)
    print(f"done: {runner.loop.iter} steps; checkpoints in {work_dir}")
    return 0


def _resume_target(args: argparse.Namespace) -> tuple[list[str], str | None]:
    """`--resume CONFIG` took the config for its path: give it back; `--resume` alone means auto."""
    from medtune.config import names_config

    word = args.resume or ""
    if not Path(word).is_dir() and (word.endswith(".py") or "=" in word or names_config(word)):
        return [*args.words, word], "auto"
    return args.words, args.resume


def _check(config: Config) -> int:
    """`--check`: everything that can be known before a weight is loaded."""
    from medtune.commands.show import how_painted, paint_sample
    from medtune.engine.train import prepare_inputs

    inputs = prepare_inputs(config)
    print(f"config {config.name}: no fault found")
    for line in inputs.train_dataset.report.lines():
        print(f"data: {line}")
    if inputs.val_data is not None:
        print(f"validation: {len(inputs.val_data.dataset.samples)} samples")  # type: ignore[attr-defined]
    print(f"steps in an epoch: {len(inputs.train_data)}")
    print(f"first sample ({inputs.train_dataset.samples[0]['origin']}), trained tokens {how_painted()}:")
    print(paint_sample(inputs.train_dataset.samples[0], inputs.tokenizer))
    return 0

"""Every kind of resumed run against the run in one piece: equal in every bit?

    python benchmarks/resume_matrix.py [--count 16] [--ranks 2]

Cuts in the middle of an epoch, at its end and before the last step x dropout 0 and 0.1 x packing x accumulation 1 and 4
x 0 and 2 data workers; on one rank, or on several with `--ranks`. `--count` takes the first of the 16 settings, in an
order in which each value comes early. Compared are the scalars after the cut, the last checkpoint's weights, optimizer
state and random states, and the counters.
"""

from __future__ import annotations

import itertools
import shutil
import sys
from pathlib import Path
from typing import Any

from campaign import curve, finish, parser, weights, world
from helpers import ranks, small_run

from medtune.engine import distributed


def settings() -> list[dict[str, Any]]:
    """The 16 settings; two neighbours differ in every value."""
    names = ("lora_dropout", "pack_to_max_length", "accumulative_counts", "dataloader_num_workers")
    grid = itertools.product((0.1, 0.0), (True, False), (4, 1), (2, 0))
    made = [dict(zip(names, values, strict=True)) for values in grid]
    return [case for pair in zip(made[:8], reversed(made[8:]), strict=True) for case in pair]


def cuts_that_differ(
    folder: Path, model: Path, data: Path, number: int, changed: dict[str, Any]
) -> tuple[int, int, list[str]]:
    """Train in one piece and cut at three steps; how many steps and cuts there were, and which ends differ.

    On several ranks each of them calls it, and what rank 0 returns counts.
    """
    changed = {**changed, "max_epochs": 2, "max_steps": None, "save_steps": 1, "max_length": 64}
    name = f"case{number}"
    whole = small_run(folder / name, model, data, **changed)
    num_epoch, num_steps = whole.loop.steps_per_epoch, whole.loop.num_steps
    cuts = {"mid-epoch": num_epoch + num_epoch // 2, "epoch end": num_epoch, "last step": num_steps - 1}
    last, scalars = f"iter_{num_steps}.pth", curve(folder / name)
    wrong = []
    for where, step in cuts.items():
        run = folder / f"{name}-{step}"
        if distributed.is_main():
            shutil.copytree(folder / name / f"iter_{step}.pth", run / f"iter_{step}.pth")
        distributed.barrier()
        resumed = small_run(run, model, data, resume="auto", **changed)
        after = {s: values for s, values in scalars.items() if s > step}
        if distributed.is_main():
            same = weights(run / last) == weights(folder / name / last) and curve(run) == after
            if not (same and after and resumed.loop.progress == whole.loop.progress):
                wrong.append(f"{changed} cut at the {where}, step {step} of {num_steps}")
            shutil.rmtree(run)
        distributed.barrier()
    return num_steps, len(cuts), wrong


def main(words: list[str] | None = None) -> int:
    """Run the campaign."""
    made = parser(__doc__ or "", 16)
    made.add_argument("--ranks", type=int, default=1, help="processes that train together over gloo")
    arguments = made.parse_args(words)
    total, faults = 0, []
    with world() as place:
        for number, changed in enumerate(settings()[: arguments.count]):
            case = (place.folder, place.model, place.data, number, changed)
            alone = arguments.ranks == 1
            told = cuts_that_differ(*case) if alone else ranks(arguments.ranks, cuts_that_differ, *case, timeout=900)[0]
            steps, count, wrong = told
            print(f"{number + 1}: {changed}: {count - len(wrong)} of {count} cuts of {steps} steps", flush=True)
            total += count
            faults += wrong
    return finish(f"resumed runs equal in every bit, ranks {arguments.ranks}", total - len(faults), total, faults)


if __name__ == "__main__":
    sys.exit(main())

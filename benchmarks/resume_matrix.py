"""Every kind of resumed run against the run in one piece: equal in every bit?

    python benchmarks/resume_matrix.py [--count 16]

Cuts in the middle of an epoch, at its end and before the last step x dropout 0 and 0.1 x packing x accumulation 1 and 4
x 0 and 2 data workers; on one rank. `--count` takes the first of the 16 settings, in an order in which each value comes
early. Compared are the scalars after the cut, the last checkpoint's weights, optimizer state and random states, and the
counters.
"""

from __future__ import annotations

import itertools
import shutil
import sys
from typing import Any

from campaign import World, curve, finish, parser, weights, world
from helpers import small_run


def settings() -> list[dict[str, Any]]:
    """The 16 settings; two neighbours differ in every value."""
    names = ("lora_dropout", "pack_to_max_length", "accumulative_counts", "dataloader_num_workers")
    grid = itertools.product((0.1, 0.0), (True, False), (4, 1), (2, 0))
    made = [dict(zip(names, values, strict=True)) for values in grid]
    return [case for pair in zip(made[:8], reversed(made[8:]), strict=True) for case in pair]


def cuts_that_differ(place: World, number: int, changed: dict[str, Any]) -> tuple[int, list[str]]:
    """Train in one piece and cut at three steps; how many were cut, and which ends differ."""
    changed = {**changed, "max_epochs": 2, "max_steps": None, "save_steps": 1, "max_length": 64}
    name = f"case{number}"
    whole = small_run(place.folder / name, place.model, place.data, **changed)
    num_epoch, num_steps = whole.loop.steps_per_epoch, whole.loop.num_steps
    cuts = {"mid-epoch": num_epoch + num_epoch // 2, "epoch end": num_epoch, "last step": num_steps - 1}
    last, scalars = f"iter_{num_steps}.pth", curve(place.folder / name)
    wrong = []
    for where, step in cuts.items():
        run = place.folder / f"{name}-{step}"
        run.mkdir()
        shutil.copytree(place.folder / name / f"iter_{step}.pth", run / f"iter_{step}.pth")
        resumed = small_run(run, place.model, place.data, resume="auto", **changed)
        after = {s: values for s, values in scalars.items() if s > step}
        same = weights(run / last) == weights(place.folder / name / last) and curve(run) == after
        if not (same and after and resumed.loop.progress == whole.loop.progress):
            wrong.append(f"{changed} cut at the {where}, step {step} of {num_steps}")
        shutil.rmtree(run)
    shutil.rmtree(place.folder / name)
    return len(cuts), wrong


def main(words: list[str] | None = None) -> int:
    """Run the campaign."""
    arguments = parser(__doc__ or "", 16).parse_args(words)
    total, faults = 0, []
    with world() as place:
        for number, changed in enumerate(settings()[: arguments.count]):
            count, wrong = cuts_that_differ(place, number, changed)
            total += count
            faults += wrong
    return finish("resumed runs equal in every bit", total - len(faults), total, faults)


if __name__ == "__main__":
    sys.exit(main())

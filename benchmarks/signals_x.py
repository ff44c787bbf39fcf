"""Signals at random moments, while the model loads and inside saves too: exit code, what is kept, what is lost.

    python benchmarks/signals.py [--count 30] [--seed 0]

SIGTERM, SIGUSR1 and SIGINT in turn, to the whole process group as Slurm and terminals send them, data workers
included; every fifth time a second one follows at once. Wanted: exit code 75 (130 for SIGINT), or the end by the second
signal; no finished step lost after an orderly stop; every checkpoint that is there verifies; and the end, with
`--resume auto`, of the undisturbed run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from campaign import World, complete, curve, finish, fork, fork_to, leftovers, parser, wait, weights, world

from medtune.engine.checkpoint import find_checkpoints, verify

SETTINGS = {"max_steps": 12, "save_steps": 3, "save_total_limit": 2, "dataloader_num_workers": 2}
LAST = "iter_12.pth"
CODES = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130}


def lost_steps(run: Path) -> int:
    """Steps that were logged and are in no checkpoint."""
    saved = find_checkpoints(run)
    step = json.loads((saved[0] / "state.json").read_text())["progress"]["step"] if saved else 0
    return max(curve(run), default=0) - step


def strike(place: World, number: int, seconds: float, draw: random.Random) -> tuple[str, str]:
    """Signal one run and finish it; when it was hit, and what is wrong after it."""
    run = place.folder / f"run{number}"
    words = place.words(run.name, **SETTINGS, async_save=bool(number % 2))
    kind, twice = list(CODES)[number % 3], number % 5 == 4
    pid = fork_to(place.folder / "log", words, os.setsid)
    while not (run / ".lock").exists():  # before that it is a Python program that imports
        time.sleep(0.001)
    time.sleep(draw.uniform(0, seconds / 4))  # every fourth while it loads
    for _ in range(1 + twice):
        os.killpg(pid, kind)
    code = wait(pid)
    allowed = {CODES[kind], 0, *([-kind] if twice else [])}
    wrong = (
        [] if code in allowed else [f"exit code {code} after {kind.name}: {(place.folder / 'log').read_text()[-400:]}"]
    )
    when = "done before" if code == 0 else "at once" if code < 0 else "while loading" if not curve(run) else "training"
    if when == "training" and (lost := lost_steps(run)):
        wrong.append(f"{lost} steps lost")
    for folder in find_checkpoints(run):
        verify(folder)
    code = wait(fork(words))
    same = weights(run / LAST) == weights(place.folder / "whole" / LAST) and curve(run) == curve(place.folder / "whole")
    if code != 0 or not same or leftovers(run):
        wrong.append(f"--resume auto ended with {code}, equal: {same}, {leftovers(run)}")
    return when, "; ".join(wrong)


def main(words: list[str] | None = None) -> int:
    """Run the campaign."""
    arguments = parser(__doc__ or "", 30).parse_args(words)
    draw = random.Random(arguments.seed)
    times, faults = Counter[str](), []
    with world() as place:
        for name in ("warm", "whole"):
            began = time.monotonic()
            complete(place.folder / "log", place.words(name, **SETTINGS))
            seconds = 0.7 * (time.monotonic() - began)  # the rest is its end and its start
        for number in range(arguments.count):
            when, wrong = strike(place, number, seconds, draw)
            times[when] += 1
            if wrong:
                faults.append(f"run {number}, {when}: {wrong}")
    print(dict(times))
    return finish("signals answered rightly", arguments.count - len(faults), arguments.count, faults)


if __name__ == "__main__":
    sys.exit(main())

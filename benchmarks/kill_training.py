"""SIGKILL at random moments, `--resume auto` until done: is the end that of the run nobody disturbed?

    python benchmarks/kill_training.py [--count 50] [--seed 0]

Every second kill strikes inside a save, at a random file operation of it; the others after a random time. Every second
run saves asynchronously. Compared are, bit for bit: the scalars of every step in every repetition, and the last
checkpoint's weights, optimizer state and random states.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from campaign import complete, curve, finish, fork, leftovers, parser, wait, weights, world

SETTINGS = {"max_steps": 14, "save_steps": 2, "save_total_limit": 2}
LAST = "iter_14.pth"
IN_SAVE = (".tmp-", ".old-", ".last_checkpoint-")


def kill_at(operation: int, count_to: Path | None = None) -> None:
    """Kill this process at its n-th file operation inside a save; with `count_to`, count them instead."""
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event.startswith(("os.", "open")) and any(part in str(arguments[:2]) for part in IN_SAVE):
            seen += 1
            if count_to is not None and event != "open":
                count_to.with_name("count").write_text(str(seen))
            elif seen == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def in_a_save(run: Path) -> bool:
    """Whether the process that ended left a save half done: its folder, or the pointer not moved yet."""
    saved = [int(f.name[5:-4]) for f in run.glob("iter_*.pth")]
    pointer = run / "last_checkpoint"
    pointed = int(pointer.read_text().strip()[5:-4]) if pointer.is_file() else -1
    return any(name.startswith(IN_SAVE) for name in leftovers(run)) or max(saved, default=-1) > pointed


def kill_once(words: list[str], run: Path, inside: bool, draw: random.Random, total: tuple[int, float]) -> str:
    """Start or go on with a run and kill it; where it was hit: "save", "elsewhere", or "" if it was done first."""
    operations, seconds = total
    if inside:
        at = draw.randint(1, operations)
        pid = fork(words, lambda: kill_at(at))
    else:
        pid = fork(words)
        time.sleep(draw.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)
    code = wait(pid)
    if code == 0:
        return ""
    if code != -signal.SIGKILL:
        raise SystemExit(f"{' '.join(words)}: exit code {code} before any kill")
    return "save" if in_a_save(run) else "elsewhere"


def main(words: list[str] | None = None) -> int:
    """Run the campaign."""
    arguments = parser(__doc__ or "", 50).parse_args(words)
    draw = random.Random(arguments.seed)
    hit = {"save": 0, "elsewhere": 0}
    good, faults = 0, []
    with world() as place:
        whole = place.folder / "whole"
        began = time.monotonic()
        complete(place.folder / "log", place.words("whole", **SETTINGS), lambda: kill_at(0, whole))
        total = int((place.folder / "count").read_text()), time.monotonic() - began
        wanted = weights(whole / LAST), curve(whole)
        number = 0
        while sum(hit.values()) < arguments.count:
            number += 1
            run = place.folder / f"run{number}"
            command = place.words(run.name, **SETTINGS, async_save=bool(number % 2))
            kills = []
            for _ in range(min(2, arguments.count - sum(hit.values()))):
                inside = hit["save"] <= hit["elsewhere"]
                if where := kill_once(command, run, inside, draw, total):
                    hit[where] += 1
                    kills.append(where)
            code = wait(fork(command))
            found = weights(run / LAST), curve(run)
            if code == 0 and found == wanted and not leftovers(run):
                good += len(kills)
            else:
                same = [a == b for a, b in zip(found, wanted, strict=True)]
                faults.append(f"{run.name}: exit code {code}, weights and curve equal: {same}, {leftovers(run)}")
    print(f"{hit['save']} kills inside a save, {hit['elsewhere']} elsewhere, in {number} runs")
    return finish("identical after SIGKILL and --resume auto", good, arguments.count, faults)


if __name__ == "__main__":
    sys.exit(main())

"""Damaged checkpoints: is every damage noticed, and the older checkpoint used by `--resume auto`?

    python benchmarks/corruption.py [--count 620] [--seed 0]

500 of 620 are single flipped bits, 100 cuts, 20 missing, empty or swapped files, in files drawn by chance with every
file of the checkpoint among them.
"""

from __future__ import annotations

import itertools
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from campaign import complete, finish, fork_to, parser, wait, world

from medtune.engine.checkpoint import newest_valid

SETTINGS = {"max_steps": 2, "save_steps": 1}
OTHERS = ("missing", "empty", "swapped inside", "swapped with the older one", "a folder", "a link")


def flip(file: Path, draw: random.Random) -> None:
    """Flip one bit."""
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def cut(file: Path, draw: random.Random) -> None:
    """Cut the end off, one byte of it at least."""
    content = file.read_bytes()
    file.write_bytes(content[: draw.randrange(len(content))])


def other(kind: str, file: Path, draw: random.Random) -> None:
    """Do one of the other damages to a file."""
    twins = [f for f in file.parent.iterdir() if f != file and f.read_bytes() != file.read_bytes()]
    older = file.parent.with_name("iter_1.pth") / file.name
    content = file.read_bytes()
    if kind == "swapped inside":
        twin = draw.choice(twins)
        file.write_bytes(twin.read_bytes())
        twin.write_bytes(content)
    elif kind == "swapped with the older one":
        file.write_bytes(older.read_bytes() if older.read_bytes() != content else b"")
    else:
        file.unlink()
        if kind == "empty":
            file.touch()
        elif kind == "a folder":
            file.mkdir()
        elif kind == "a link":
            file.symlink_to(Path("/dev/null"))


def damages(count: int, files: list[str], draw: random.Random) -> Iterator[tuple[str, str]]:
    """Kind of damage and file name, `count` times, in the shares of the campaign."""
    names = itertools.cycle(draw.sample(files, len(files)))
    kinds = itertools.cycle(OTHERS)
    for number in range(count):
        part = number * 620 / count
        kind = "flip" if part < 500 else "cut" if part < 600 else next(kinds)
        yield kind, next(names)


def main(words: list[str] | None = None) -> int:
    """Run the campaign."""
    arguments = parser(__doc__ or "", 620).parse_args(words)
    draw = random.Random(arguments.seed)
    noticed: Counter[str] = Counter()
    faults = []
    with world() as place:
        complete(place.folder / "log", place.words("run", **SETTINGS))
        run = place.folder / "run"
        newest, kept = run / "iter_2.pth", place.folder / "kept"
        shutil.copytree(newest, kept)
        files = sorted(f.name for f in newest.iterdir())
        for kind, name in damages(arguments.count, files, draw):
            {"flip": flip, "cut": cut}.get(kind, lambda f, d, kind=kind: other(kind, f, d))(newest / name, draw)
            told: list[str] = []
            if newest_valid(run, told.append) == run / "iter_1.pth" and "iter_2.pth" in "".join(told):
                noticed[kind if kind in ("flip", "cut") else "other"] += 1
            else:
                faults.append(f"{kind} of {name}: not noticed")
            shutil.rmtree(newest)
            shutil.copytree(kept, newest)
        flip(newest / "optimizer.safetensors", draw)
        code = wait(fork_to(place.folder / "log", place.words("run", **SETTINGS)))
        if code != 0 or "resumed from iter_1.pth" not in (place.folder / "log").read_text():
            faults.append(f"--resume auto did not go on from the older one: exit code {code}")
    print(f"{dict(noticed)}, over {len(files)} files")
    return finish("damages noticed, older checkpoint used", sum(noticed.values()), arguments.count, faults)


if __name__ == "__main__":
    sys.exit(main())

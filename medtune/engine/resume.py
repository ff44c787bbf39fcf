"""Where a training goes on from: which checkpoint, whether it may, and what becomes of the ones it leaves behind."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medtune.engine import checkpoint, distributed
from medtune.engine.identity import differences
from medtune.engine.state import STATE
from medtune.errors import UsageError
from medtune.files import fsync, read_json


def find(work_dir: Path, wanted: str, warn: Callable[[str], None]) -> Path | None:
    """The checkpoint to go on from, verified; rank 0 chooses for all.

    Args:
        work_dir: `work_dirs/NAME`.
        wanted: "auto" for its newest valid checkpoint, or a checkpoint folder.
        warn: told of every broken one that "auto" skips.

    Returns: None if "auto" finds none.

    Raises:
        ModelError: the named one is damaged, or no checkpoint.
    """
    found = ""
    with distributed.together():
        if distributed.is_main() and wanted == "auto":
            found = str(checkpoint.newest_valid(work_dir, warn) or "")
        elif distributed.is_main():
            found = wanted
            checkpoint.verify(Path(wanted))
    found = distributed.gather_text(found)[0]
    return Path(found) if found else None


def require_same_run(folder: Path, mine: dict[str, Any], text: str) -> None:
    """Refuse to go on from a checkpoint whose run would have given other numbers.

    Args:
        folder: the checkpoint.
        mine: `identity` of this run.
        text: of this run's config.

    Raises:
        UsageError: it names every setting that differs.
    """
    config = folder / "config.py"
    saved_text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    told = differences(read_json(folder / STATE), mine, saved_text, text)
    if told:
        raise UsageError(
            f"{folder}: saved by a run that differs from this one: {'; '.join(told)}. It would not go on with the same "
            "numbers. Use the settings and data it was saved with, or add --resume-anyway."
        )


# ---------------------------------------------------------------- aside


def move_later(work_dir: Path, resumed: Path) -> tuple[list[Path], Path] | None:
    """Move the checkpoints of a branch that is left, now that the run goes on from an older one, beside the work dir.

    A later `--resume auto` would prefer them. These are the checkpoints of more steps, or all if `resumed` is of
    another folder. `last_checkpoint` and `best_checkpoint` never name what is not there; a kill in between leaves the
    branch shorter, and the same command moves the rest.

    Returns: what was moved, newest first, and where to; None if there was nothing.
    """
    here = resumed.resolve().parent == work_dir.resolve()
    step = checkpoint.step_of(resumed) if here else -1
    later = [f for f in checkpoint.find_checkpoints(work_dir) if checkpoint.step_of(f) > step]
    if not later:
        return None
    best = checkpoint.best_of(work_dir)
    aside = new_aside(work_dir)
    checkpoint.point_last_to(aside / later[0].name)
    if here:
        checkpoint.point_last_to(work_dir / resumed.name)
    else:
        (work_dir / checkpoint.LAST).unlink(missing_ok=True)
    if best in later:
        checkpoint.point_last_to(aside / best.name, checkpoint.BEST)
        _restore_best(work_dir, resumed, later)
    move(later, aside)
    return later, aside


def _restore_best(work_dir: Path, resumed: Path, leaving: Sequence[Path]) -> None:
    """Let `best_checkpoint` name what was best when `resumed` was saved, if that is still there; else nothing."""
    remembered = read_json(resumed / STATE).get("hooks", {}).get("ValidationHook", {}).get("best_step", -1)
    staying = [f for f in checkpoint.find_checkpoints(work_dir) if f not in leaving]
    best = next((f for f in staying if checkpoint.step_of(f) == remembered), None)
    if best is not None:
        checkpoint.point_last_to(best, checkpoint.BEST)
    else:
        (work_dir / checkpoint.BEST).unlink()


def new_aside(work_dir: Path) -> Path:
    """A new, private folder beside the work dir."""
    aside = work_dir.with_name(f"{work_dir.name}_before_{datetime.datetime.now():%Y%m%d_%H%M%S_%f}")
    aside.mkdir(mode=0o700)
    return aside


def move(items: Sequence[Path], aside: Path) -> None:
    """Move files and folders, one rename each, for sure."""
    for item in items:
        item.rename(aside / item.name)
        fsync(item.parent)
    fsync(aside)
    fsync(aside.parent)

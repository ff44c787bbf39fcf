"""Learning-rate schedules as a pure function of the optimizer step, right for any number of steps from 1 up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

import torch
from torch.optim.lr_scheduler import LambdaLR

from medtune.build import Share, Within, checked_by
from medtune.errors import ConfigError, nearest

Schedule = Literal["cosine", "linear", "constant", "wsd"]


def lr_factor(
    step: int, num_steps: int, num_warmup_steps: int, schedule: Schedule = "cosine", min_lr_ratio: float = 0.0
) -> float:
    """Factor on the peak learning rate at optimizer step `step`, counted from 0.

    Warm-up rises from 1/(w+1) to w/(w+1) over its w steps, so that no step has rate 0; the step after it has the
    peak. "cosine" and "linear" then fall towards `min_lr_ratio`, reached just after the last step; "wsd" (warm-up,
    stable, decay: Hu et al. 2024, arXiv 2404.06395) stays at the peak and falls linearly over the last fifth.
    """
    if step < num_warmup_steps:
        return (step + 1) / (num_warmup_steps + 1)
    progress = min((step - num_warmup_steps) / max(num_steps - num_warmup_steps, 1), 1.0)
    if schedule == "constant":
        left = 1.0
    elif schedule == "linear":
        left = 1.0 - progress
    elif schedule == "wsd":
        left = min(1.0, (1.0 - progress) / 0.2)
    else:
        left = 0.5 * (1.0 + math.cos(math.pi * progress))
    return min_lr_ratio + (1.0 - min_lr_ratio) * left


def _precheck_schedule(schedule: Any = "cosine", **_: Any) -> None:
    names = get_args(Schedule)
    if not callable(schedule) and schedule not in names:
        raise ConfigError(
            f"lr_schedule {schedule!r} is none of {', '.join(map(repr, names))}.{nearest(str(schedule), names)}"
        )


@checked_by(_precheck_schedule)
def warmup_schedule(
    optimizer: torch.optim.Optimizer,
    num_steps: int,
    schedule: Schedule | Callable[[int, int, int], float] = "cosine",
    warmup_ratio: Share = 0.03,
    warmup_steps: Annotated[int, Within(0)] | None = None,
    min_lr_ratio: Share = 0.0,
) -> LambdaLR:
    """Scheduler over optimizer steps.

    Args:
        optimizer: whose groups' rates are the peak rates.
        num_steps: optimizer steps of the whole training.
        schedule: what follows the warm-up; see `lr_factor`. Or a function of (step from 0, num_steps,
            num_warmup_steps) that returns the whole factor, warm-up included.
        warmup_ratio: share of the steps that warm up, if `warmup_steps` is None.
        warmup_steps: steps that warm up. At least one step is left to the peak.
        min_lr_ratio: rate at the end, as a share of the peak.
    """
    wanted = math.ceil(warmup_ratio * num_steps) if warmup_steps is None else warmup_steps
    num_warmup_steps = max(0, min(wanted, num_steps - 1))

    def factor(step: int) -> float:
        if callable(schedule):
            return schedule(step, num_steps, num_warmup_steps)
        return lr_factor(step, num_steps, num_warmup_steps, schedule, min_lr_ratio)

    return LambdaLR(optimizer, factor)

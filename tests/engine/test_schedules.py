"""Learning-rate schedules over every length from 1 to 200 steps."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from medtune.build import check
from medtune.engine.schedules import lr_factor, warmup_schedule

KINDS = ("cosine", "linear", "constant", "wsd")


def optimizer_of(peak=1.0):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)


def rates(num_steps, **options):
    """The rate of each optimizer step, for a peak of 1."""
    factor = warmup_schedule(optimizer_of(), num_steps, **options).lr_lambdas[0]
    return [factor(step) for step in range(num_steps)]


def test_the_optimizer_sees_the_peak_times_the_factor_of_its_step():
    optimizer = optimizer_of(peak=0.3)
    scheduler = warmup_schedule(optimizer, 12, warmup_steps=3)
    for factor in rates(12, warmup_steps=3):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3 * factor, rel=1e-15)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [0.0, 0.03, 0.1, 0.5, 1.0])
def test_every_step_has_a_rate_above_0_and_at_most_the_peak_which_is_reached(kind, ratio):
    for num_steps in range(1, 201):
        seen = rates(num_steps, schedule=kind, warmup_ratio=ratio)
        assert min(seen) > 0, num_steps
        assert max(seen) == 1.0, num_steps


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_rises_through_the_warm_up_and_never_after_it(kind):
    for num_steps in (2, 3, 10, 57, 200):
        for warmup in (0, 1, num_steps // 3, num_steps - 1):
            seen = rates(num_steps, schedule=kind, warmup_steps=warmup)
            assert all(a < b for a, b in pairwise(seen[: warmup + 1]))
            assert seen[warmup] == 1.0
            assert all(a >= b for a, b in pairwise(seen[warmup:]))


def test_warm_up_is_a_straight_line_to_the_step_after_it():
    assert rates(8, schedule="constant", warmup_steps=3) == [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 1]


def test_after_the_warm_up_each_kind_follows_its_closed_form():
    num_steps, warmup = 50, 10
    for step in range(warmup, num_steps):
        x = (step - warmup) / (num_steps - warmup)
        wanted = {
            "cosine": (1 + math.cos(math.pi * x)) / 2,
            "linear": 1 - x,
            "constant": 1.0,
            "wsd": 1.0 if x <= 0.8 else (1 - x) * 5,
        }
        for kind in KINDS:
            assert rates(num_steps, schedule=kind, warmup_steps=warmup)[step] == pytest.approx(wanted[kind], abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_just_after_the_last_step_is_the_least(kind):
    least = {"constant": 1.0}.get(kind, 0.1)
    assert lr_factor(100, 100, 5, kind, min_lr_ratio=0.1) == pytest.approx(least)
    assert lr_factor(140, 100, 5, kind, min_lr_ratio=0.1) == pytest.approx(least)  # and stays there
    assert min(rates(100, schedule=kind, warmup_steps=5, min_lr_ratio=0.1)[5:]) >= least


def test_warm_up_steps_win_over_the_ratio_and_leave_a_step_at_the_peak():
    assert rates(10, schedule="constant", warmup_ratio=0.5, warmup_steps=0) == [1.0] * 10
    assert rates(5, schedule="linear", warmup_steps=1000) == [1 / 5, 2 / 5, 3 / 5, 4 / 5, 1]
    assert rates(1, schedule="cosine", warmup_ratio=1.0) == [1.0]


def test_the_default_warm_up_is_three_steps_in_a_hundred():
    assert rates(100).index(1.0) == 3


def test_a_function_gives_the_whole_factor():
    seen = []

    def halving(step, num_steps, num_warmup_steps):
        seen.append((num_steps, num_warmup_steps))
        return 0.5**step

    assert rates(4, schedule=halving, warmup_steps=2) == [1, 0.5, 0.25, 0.125]
    assert set(seen) == {(4, 2)}
    assert check({"s": {"type": warmup_schedule, "schedule": halving}}) == []


@pytest.mark.parametrize("name", ["cosin", 3])
def test_an_unknown_schedule_is_found_by_the_check_of_the_config(name):
    (fault,) = check({"s": {"type": warmup_schedule, "schedule": name}})
    assert fault.startswith(f"s: lr_schedule {name!r} is none of 'cosine', 'linear', 'constant', 'wsd'.")


def test_a_saved_scheduler_continues_where_it_was():
    def make():
        optimizer = optimizer_of(peak=0.3)
        return optimizer, warmup_schedule(optimizer, 20, warmup_steps=4)

    (optimizer, scheduler), (fresh, other) = make(), make()
    for _ in range(9):
        optimizer.step()
        scheduler.step()
    fresh.load_state_dict(optimizer.state_dict())
    other.load_state_dict(scheduler.state_dict())
    for _ in range(10):
        for o, s in ((optimizer, scheduler), (fresh, other)):
            o.step()
            s.step()
        assert fresh.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]

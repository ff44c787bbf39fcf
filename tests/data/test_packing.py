"""Packing: nothing lost, nothing twice, no pack too full, few packs, always the same plan."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.data.packing import plan_packs
from medtune.errors import DataError

CAPACITY = 64
lengths_lists = st.lists(st.integers(1, CAPACITY), max_size=200)
seeds = st.one_of(st.none(), st.integers(0, 2**32 - 1))


@given(lengths_lists, seeds)
def test_every_sample_stands_in_exactly_one_pack_and_no_pack_is_over_capacity(lengths, seed):
    packs = plan_packs(lengths, CAPACITY, seed)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in pack) <= CAPACITY for pack in packs)


@given(lengths_lists, seeds)
def test_the_same_lengths_and_seed_give_the_same_plan(lengths, seed):
    assert plan_packs(lengths, CAPACITY, seed) == plan_packs(np.array(lengths), CAPACITY, seed)


@given(lengths_lists, seeds)
def test_the_plan_is_near_the_least_number_of_packs(lengths, seed):
    """Best fit decreasing needs at most 11/9 of the optimum plus 6/9; the optimum is at least each bound below."""
    by_tokens = -(-sum(lengths) // CAPACITY)
    by_halves = sum(length > CAPACITY / 2 for length in lengths)  # no two of these share a pack
    packs = plan_packs(lengths, CAPACITY, seed)
    assert max(by_tokens, by_halves) <= len(packs)
    assert sum(sum(lengths[i] for i in pack) <= CAPACITY / 2 for pack in packs) <= 1  # two such would share one


@given(st.lists(st.integers(1, CAPACITY // 4), min_size=1, max_size=200))
def test_short_samples_leave_only_the_last_pack_less_than_three_quarters_full(lengths):
    packs = plan_packs(lengths, CAPACITY, 0)
    loose = [pack for pack in packs if sum(lengths[i] for i in pack) <= CAPACITY * 3 // 4]
    assert len(loose) <= 1


def optimum(lengths: tuple[int, ...], capacity: int) -> int:
    """Least number of packs, by trying everything."""
    best = len(lengths)

    def place(rest: tuple[int, ...], rooms: tuple[int, ...]) -> None:
        nonlocal best
        if len(rooms) >= best:
            return
        if not rest:
            best = len(rooms)
            return
        for room in set(rooms):
            if room >= rest[0]:
                at = rooms.index(room)
                place(rest[1:], (*rooms[:at], room - rest[0], *rooms[at + 1 :]))
        place(rest[1:], (*rooms, capacity - rest[0]))

    place(tuple(sorted(lengths, reverse=True)), ())
    return best


def test_the_plan_keeps_the_bound_of_best_fit_decreasing_against_the_true_optimum():
    rng = np.random.default_rng(0)
    for _ in range(150):
        lengths = rng.integers(1, 25, rng.integers(1, 10)).tolist()
        assert len(plan_packs(lengths, 24, 0)) <= optimum(tuple(lengths), 24) * 11 / 9 + 6 / 9


def test_a_sample_longer_than_a_pack_is_named_with_its_length():
    with pytest.raises(DataError, match=r"sample 1 has 65 tokens, a pack holds 64"):
        plan_packs([3, 65, 64], CAPACITY)


def test_no_samples_make_no_packs():
    assert plan_packs([], CAPACITY, 0) == []


def test_without_a_seed_packs_keep_file_order_and_with_one_equal_lengths_are_mixed():
    lengths = [8] * 64
    assert plan_packs(lengths, CAPACITY) == [list(range(i, i + 8)) for i in range(0, 64, 8)]
    assert plan_packs(lengths, CAPACITY, 1) != plan_packs(lengths, CAPACITY, 2)


def test_a_large_plan_is_dense_and_takes_well_under_a_second():
    lengths = np.random.default_rng(0).lognormal(5, 0.8, 100_000).clip(1, 2048).astype(np.int64)
    started = time.process_time()
    packs = plan_packs(lengths, 2048, 0)
    assert time.process_time() - started < 5  # seconds; 0.4 here
    assert lengths.sum() / (len(packs) * 2048) > 0.99

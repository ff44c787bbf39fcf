"""Packing: nothing lost, nothing twice, no pack too full, few packs, always the same plan."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.data.packing import mix_packs, plan_packs
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


@pytest.mark.slow
def test_a_plan_of_a_million_is_dense_and_takes_less_than_two_seconds():
    lengths = np.random.default_rng(0).lognormal(5, 0.8, 1_000_000).clip(1, 2048).astype(np.int64)
    started = time.process_time()
    packs = plan_packs(lengths, 2048, 0)
    assert time.process_time() - started < 4  # seconds; 0.8 here, on a machine of its own
    assert lengths.sum() / (len(packs) * 2048) > 0.99
    started = time.process_time()
    assert len(mix_packs(packs, lengths, 2048, [0, 1])) == len(packs)
    assert time.process_time() - started < 4  # 1.0 here


# ---------------------------------------------------------------- groups: the answers of a preference pair


pairs = st.lists(st.tuples(st.integers(1, CAPACITY // 2), st.integers(1, CAPACITY // 2)), max_size=100)


@given(pairs, seeds, st.booleans())
def test_a_group_shares_a_pack_side_by_side_whatever_the_plan(pairs, seed, mixed):
    lengths = np.array([length for pair in pairs for length in pair], np.int64)
    groups = np.arange(len(lengths)) // 2
    packs = plan_packs(lengths, CAPACITY, seed, groups)
    if mixed:
        packs = mix_packs(packs, lengths, CAPACITY, [seed or 0, 1], groups)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in pack) <= CAPACITY for pack in packs)
    for pack in packs:
        assert all(first % 2 == 0 and second == first + 1 for first, second in zip(pack[::2], pack[1::2], strict=True))


def test_a_group_longer_than_a_pack_is_named():
    with pytest.raises(DataError, match=r"samples of group 1 have 70 tokens together, a pack holds 64"):
        plan_packs([3, 3, 40, 30], CAPACITY, groups=[0, 0, 1, 1])


# ---------------------------------------------------------------- another epoch


@given(lengths_lists, st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_mixing_loses_nothing_keeps_the_capacity_and_the_number_of_packs(lengths, seed, epoch):
    packs = plan_packs(lengths, CAPACITY, seed)
    mixed = mix_packs(packs, np.array(lengths, np.int64), CAPACITY, [seed, epoch])
    assert sorted(i for pack in mixed for i in pack) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in pack) <= CAPACITY for pack in mixed)
    assert [len(pack) for pack in mixed] == [len(pack) for pack in packs]
    assert mixed == mix_packs(packs, np.array(lengths, np.int64), CAPACITY, [seed, epoch])


@pytest.mark.parametrize("count", [60, 2000])
def test_mixing_gives_most_samples_other_neighbours_in_every_epoch(count):
    lengths = np.random.default_rng(1).integers(5, 200, count)
    packs = plan_packs(lengths, 1000, 0)

    def neighbours(packs):
        return {(i, j) for pack in packs for i in pack for j in pack if i < j}

    plans = [neighbours(packs), *(neighbours(mix_packs(packs, lengths, 1000, [0, epoch])) for epoch in (1, 2))]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert len(plans[one] & plans[other]) < len(plans[one]) / 2

"""The order of packs: a pure function of seed and epoch, whole over any number of ranks, seekable."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.data.sampler import StepSampler


def packs_of(count: int) -> list[list[int]]:
    """Packs of one to three samples; sample 10 * p + k stands in pack p."""
    return [[10 * p + k for k in range(1 + p % 3)] for p in range(count)]


def samples_of(steps: list[list[list[int]]]) -> list[int]:
    return [sample for step in steps for micro in step for sample in micro]


shapes = st.tuples(st.integers(1, 40), st.integers(1, 4), st.integers(1, 4))


@given(shapes, st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_over_all_ranks_an_epoch_holds_every_sample_exactly_once(shape, world_size, epoch, shuffle):
    """T23: fails when the last step is dropped, or filled up with repeated samples so that each rank has as many."""
    count, batch_size, accumulation = shape
    packs = packs_of(count)
    seen: list[int] = []
    lengths = set()
    for rank in range(world_size):
        sampler = StepSampler(packs, batch_size, accumulation, shuffle, 3, rank, world_size)
        sampler.seek(epoch)
        steps = list(sampler)
        lengths.add(len(steps))
        seen += samples_of(steps)
    assert Counter(seen) == Counter(s for pack in packs for s in pack)
    assert lengths == {math.ceil(count / (batch_size * accumulation * world_size))}  # no rank waits for another


@given(st.integers(1, 40), st.integers(1, 3))
def test_a_step_holds_the_same_packs_whatever_the_number_of_ranks(count, accumulation):
    """T22: fails when each rank shuffles for itself, or the order depends on how many there are.

    8 packs per micro-batch round in all three cases: 1 rank of 8, 2 of 4, 4 of 2.
    """
    packs = packs_of(count)

    def steps(world_size: int) -> list[list[int]]:
        ranks = [
            list(StepSampler(packs, 8 // world_size, accumulation, True, 5, rank, world_size))
            for rank in range(world_size)
        ]
        return [sorted(samples_of(list(step))) for step in zip(*ranks, strict=True)]

    assert steps(1) == steps(2) == steps(4)


@given(shapes, st.integers(0, 2), st.data())
def test_seeking_to_a_step_continues_exactly_there(shape, epoch, data):
    count, batch_size, accumulation = shape
    sampler = StepSampler(packs_of(count), batch_size, accumulation, seed=11)
    sampler.seek(epoch)
    whole = list(sampler)
    step = data.draw(st.integers(0, len(whole)))
    sampler.seek(epoch, step)
    assert len(sampler) == len(whole) - step
    assert list(sampler) == whole[step:]


@given(shapes, st.integers(0, 2))
def test_micro_batches_have_the_batch_size_and_steps_the_accumulation_but_for_the_last(shape, epoch):
    count, batch_size, accumulation = shape
    packs = packs_of(count)
    sampler = StepSampler(packs, batch_size, accumulation)
    sampler.seek(epoch)
    steps = list(sampler)
    whole_micro_batches = [micro for step in steps[:-1] for micro in step] + steps[-1][:-1]
    assert all(len({s // 10 for s in micro}) == batch_size for micro in whole_micro_batches)
    assert all(len(step) == accumulation for step in steps[:-1])
    for step in range(len(steps)):
        assert samples_of([steps[step]]) == [s for p in sampler.step_packs(epoch, step) for s in packs[p]]


def test_the_order_depends_on_seed_and_epoch_alone():
    """T22: fails when each epoch has the same order, seed + epoch repeats one, or a global generator is drawn from."""

    def order(seed: int, epoch: int) -> list[int]:
        np.random.seed(np.random.randint(1000))  # the global generator has no say
        return StepSampler(packs_of(50), 2, seed=seed).order(epoch).tolist()

    assert order(1, 0) == order(1, 0)
    different = {tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(different) == 16  # above all: (seed 1, epoch 0) is not (seed 0, epoch 1)


def test_without_shuffling_the_order_is_the_files():
    sampler = StepSampler(packs_of(5), 2, shuffle=False)
    sampler.seek(3)
    assert list(sampler) == [[[0, 10, 11]], [[20, 21, 22, 30]], [[40, 41]]]


@pytest.mark.parametrize("rank", range(4))
def test_a_rank_without_a_share_of_the_last_step_still_gets_that_step(rank):
    steps = list(StepSampler(packs_of(5), 1, shuffle=False, rank=rank, world_size=4))
    assert len(steps) == 2
    assert steps[1] == ([[40, 41]] if rank == 0 else [])


# ---------------------------------------------------------------- packs of an epoch, and of like length


def moved(packs: list[list[int]]):
    """Other packs each epoch: the members of all packs moved on by as many places."""
    flat = [i for pack in packs for i in pack]

    def of(epoch: int) -> list[list[int]]:
        turned = iter(flat[epoch:] + flat[:epoch])
        return [[next(turned) for _ in pack] for pack in packs]

    return of


@given(shapes, st.integers(0, 3), st.data())
def test_with_other_packs_each_epoch_every_sample_comes_once_and_any_step_is_seeked(shape, epoch, data):
    count, batch_size, accumulation = shape
    packs = packs_of(count)
    sampler = StepSampler(packs, batch_size, accumulation, True, 3, epoch_packs=moved(packs))
    sampler.seek(epoch)
    whole = list(sampler)
    assert Counter(samples_of(whole)) == Counter(s for pack in packs for s in pack)
    fresh = StepSampler(packs, batch_size, accumulation, True, 3, epoch_packs=moved(packs))
    step = data.draw(st.integers(0, len(whole)))
    fresh.seek(epoch, step)
    assert list(fresh) == whole[step:]


def test_an_epochs_packs_are_asked_for_once_and_not_without_shuffling():
    packs, asked = packs_of(9), []

    def of(epoch):
        asked.append(epoch)
        return moved(packs)(epoch)

    sampler = StepSampler(packs, 2, epoch_packs=of)
    for epoch in (0, 1, 1, 2):
        sampler.seek(epoch)
        list(sampler)
    assert asked == [1, 2]
    sampler = StepSampler(packs, 2, shuffle=False, epoch_packs=of)
    sampler.seek(5)
    assert samples_of(list(sampler)) == [i for pack in packs for i in pack]
    assert asked == [1, 2]


@given(st.integers(1, 300), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2))
def test_by_length_every_sample_comes_once_whatever_the_ranks(count, batch_size, world_size, epoch):
    lengths = np.random.default_rng(0).integers(1, 500, count)
    packs = [[i] for i in range(count)]
    seen: list[int] = []
    for rank in range(world_size):
        sampler = StepSampler(packs, batch_size, 2, True, 3, rank, world_size, lengths=lengths)
        sampler.seek(epoch)
        seen += samples_of(list(sampler))
    assert sorted(seen) == list(range(count))


def test_by_length_steps_hold_like_lengths_in_random_order():
    lengths = np.random.default_rng(0).integers(1, 1000, 4001)
    packs = [[i] for i in range(4001)]

    def steps(epoch, by_length):
        sampler = StepSampler(packs, 4, 2, seed=1, lengths=lengths if by_length else None)
        sampler.seek(epoch)
        return [lengths[samples_of([step])] for step in sampler]

    spread = np.mean([np.ptp(step) for step in steps(0, True)[:-1]])
    assert spread < np.mean([np.ptp(step) for step in steps(0, False)[:-1]]) / 10
    means = [step.mean() for step in steps(0, True)[:-1]]
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2  # a long step does not follow a long one
    assert [step.tolist() for step in steps(0, True)] != [step.tolist() for step in steps(1, True)]
    assert len(steps(0, True)[-1]) == 1

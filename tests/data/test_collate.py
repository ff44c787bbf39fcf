"""One flat row: positions, bounds, and targets that never cross from one sample to the next."""

from __future__ import annotations

import numpy as np
import torch
from helpers import ragged_samples
from hypothesis import given
from hypothesis import strategies as st

from medtune.data.collate import IGNORE_INDEX, collate_step, flatten

lengths_lists = st.lists(st.integers(2, 30), min_size=1, max_size=8)


@given(lengths_lists, st.integers(0, 99))
def test_the_row_holds_the_samples_end_to_end_with_positions_from_0_in_each(lengths, seed):
    samples = ragged_samples(lengths, seed)
    micro = flatten(samples)
    bounds = micro.cu_seqlens.tolist()
    assert bounds == [0, *np.cumsum(lengths).tolist()]
    assert micro.max_seqlen == max(lengths)
    assert micro.origins == tuple(s["origin"] for s in samples)
    for sample, a, b in zip(samples, bounds[:-1], bounds[1:], strict=True):
        assert micro.input_ids[0, a:b].tolist() == sample["input_ids"].tolist()
        assert micro.position_ids[0, a:b].tolist() == list(range(b - a))


@given(lengths_lists, st.integers(0, 99))
def test_each_trained_token_is_predicted_once_from_the_token_before_it_in_its_own_sample(lengths, seed):
    samples = ragged_samples(lengths, seed)
    micro = flatten(samples)
    wanted = []
    start = 0
    for sample in samples:
        for t in range(1, len(sample["input_ids"])):
            if sample["labels"][t] != IGNORE_INDEX:
                wanted.append((start + t - 1, int(sample["labels"][t])))
        start += len(sample["input_ids"])
    assert list(zip(micro.predict_at.tolist(), micro.targets.tolist(), strict=True)) == wanted


def test_a_samples_first_token_is_never_a_target_even_if_it_is_marked_trained():
    """T2: fails when a label at position 0, which nothing predicts, counts in what the loss is divided by."""
    ids = np.arange(1, 5)
    micro = flatten([{"input_ids": ids, "labels": ids}, {"input_ids": ids, "labels": ids}])
    assert collate_step([[{"input_ids": ids, "labels": ids}] * 2]).num_units == 6
    assert micro.predict_at.tolist() == [0, 1, 2, 4, 5, 6]
    assert micro.targets.tolist() == [2, 3, 4, 2, 3, 4]


def test_the_samples_are_left_as_they_were():
    samples = ragged_samples([5, 7])
    samples[1]["labels"][0] = 9
    before = [s["labels"].copy() for s in samples]
    flatten(samples)
    assert all((s["labels"] == b).all() for s, b in zip(samples, before, strict=True))


def test_types_are_those_that_models_and_kernels_take():
    micro = flatten(ragged_samples([5, 7]))
    kinds = [x.dtype for x in (micro.input_ids, micro.position_ids, micro.cu_seqlens, micro.predict_at, micro.targets)]
    assert kinds == [torch.int64, torch.int64, torch.int32, torch.int64, torch.int64]


@given(st.lists(lengths_lists, min_size=1, max_size=4))
def test_a_step_counts_trained_tokens_tokens_and_samples_over_its_micro_batches(groups):
    samples = [ragged_samples(lengths, i) for i, lengths in enumerate(groups)]
    step = collate_step(samples)
    assert len(step.micro_batches) == len(groups)
    assert step.num_tokens == sum(map(sum, groups))
    assert step.num_samples == sum(map(len, groups))
    assert step.num_units == sum(int((s["labels"] != IGNORE_INDEX).sum()) for group in samples for s in group)


def test_an_empty_step_of_a_rank_has_no_micro_batch_and_no_unit():
    step = collate_step([])
    assert (step.micro_batches, step.num_units, step.num_tokens, step.num_samples) == ((), 0, 0, 0)

"""The train loop: one iteration is one optimizer step, normalised by the trained tokens of that whole step."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers import flat, ragged_samples, relative, run_loop, tiny_llama

from medtune.errors import EnvironmentFault
from medtune.models import attention
from medtune.models.sft import SupervisedFinetune


@pytest.fixture(scope="module")
def stage():
    llm = tiny_llama()
    llm.set_attn_implementation(attention.NAME)
    return SupervisedFinetune(llm, None, False, "fp32").train()


@pytest.fixture(autouse=True)
def same_weights(stage):
    before = {name: p.detach().clone() for name, p in stage.named_parameters()}
    yield
    with torch.no_grad():
        for name, parameter in stage.named_parameters():
            parameter.copy_(before[name])
            parameter.grad = None


def gradient_of(stage, samples, **shape):
    """Gradient of one step, without moving the weights."""
    optimizer = torch.optim.SGD(list(stage.trainable_parameters().values()), lr=0.0)
    run = run_loop(stage, samples, optimizer=optimizer, **shape)
    return flat(run.gradients[0]), float(run.results[0].loss_sum)


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 43), marks=pytest.mark.slow)], ids=["3", "40"])
def test_however_a_step_is_cut_into_micro_batches_its_gradient_is_the_same(stage, seeds):
    """T1: fails when a micro-batch is divided by its own trained tokens, and the step is the mean of these means.

    Ragged steps, each cut in 4 ways: the worst relative error of the whole gradient.
    """
    rng = np.random.default_rng(seeds.start)
    worst = 0.0
    for seed in seeds:
        samples = ragged_samples(rng.integers(2, 40, 4).tolist(), seed)
        wanted, loss = gradient_of(stage, samples, batch_size=4)
        order = rng.permutation(4).tolist()
        cuts = [
            {"batch_size": 1, "accumulative_counts": 4},
            {"batch_size": 2, "accumulative_counts": 2},
            {"batch_size": 3, "accumulative_counts": 2},
            {"packs": [order[:1], order[1:3], order[3:]], "accumulative_counts": 3},
        ]
        for cut in cuts:
            got, cut_loss = gradient_of(stage, samples, **cut)
            worst = max(worst, relative(got, wanted))
            assert cut_loss == pytest.approx(loss, rel=1e-6)
    assert worst <= 1e-6


def test_the_last_step_of_an_epoch_weighs_what_is_left_like_any_other(stage):
    samples = ragged_samples([9, 14, 5, 30, 8, 3, 17])
    optimizer = torch.optim.SGD(list(stage.trainable_parameters().values()), lr=0.0)
    run = run_loop(stage, samples, batch_size=1, accumulative_counts=4, max_steps=2, optimizer=optimizer)
    assert [r.num_samples for r in run.results] == [4, 3]
    wanted, loss = gradient_of(stage, samples[4:], batch_size=3)
    assert relative(flat(run.gradients[1]), wanted) <= 1e-6
    assert float(run.results[1].loss_sum) == pytest.approx(loss, rel=1e-6)


def test_counts_and_epochs_go_on_over_the_end_of_the_data(stage):
    samples = ragged_samples([5, 6, 7, 8, 9])
    run = run_loop(stage, samples, batch_size=2, max_steps=7)  # 3 steps in an epoch
    assert [r.num_samples for r in run.results] == [2, 2, 1, 2, 2, 1, 2]
    assert [r.num_tokens for r in run.results] == [11, 15, 9, 11, 15, 9, 11]
    assert all(r.num_units == sum_of_trained(samples, r.num_tokens) for r in run.results)


def sum_of_trained(samples, num_tokens):
    rows = {11: (0, 1), 15: (2, 3), 9: (4,)}[num_tokens]
    return sum(int((samples[i]["labels"] != -100).sum()) for i in rows)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_before_the_step_and_names_the_rows(stage, poison):
    """T15: fails when a step is taken on a loss that is not finite: every weight would be NaN from then on."""
    samples = ragged_samples([5, 6, 7])
    with torch.no_grad():
        stage.llm.model.norm.weight[0] = poison
    before = {name: p.detach().clone() for name, p in stage.named_parameters()}
    with pytest.raises(EnvironmentFault) as raised:
        run_loop(stage, samples, batch_size=2, accumulative_counts=2)
    assert raised.value.exit_code == 3
    message = str(raised.value)
    assert "at step 1" in message and "the weights were not touched" in message
    assert all(sample["origin"] in message for sample in samples)
    assert all(torch.equal(p.nan_to_num(), before[n].nan_to_num()) for n, p in stage.named_parameters())


def test_a_finite_loss_with_a_gradient_that_is_no_number_stops_too(stage):
    """Else the step would write NaN into every weight, and only the next loss would tell."""
    before = {name: p.detach().clone() for name, p in stage.named_parameters()}
    handle = stage.llm.model.layers[0].mlp.up_proj.weight.register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(EnvironmentFault, match="gradient's norm nan at step 1"):
        run_loop(stage, ragged_samples([5, 6]), clip_grad={"max_norm": 1.0})
    handle.remove()
    assert all(torch.equal(p, before[n]) for n, p in stage.named_parameters())


def test_under_fp16_such_a_gradient_is_skipped_and_training_goes_on(stage):
    before = {name: p.detach().clone() for name, p in stage.named_parameters()}
    weight = stage.llm.model.layers[0].mlp.up_proj.weight
    handle = weight.register_hook(lambda grad: grad * float("inf"))
    run = run_loop(stage, ragged_samples([5, 6]), dtype="fp16")
    handle.remove()
    assert run.gradients == []  # the optimizer was not asked to step
    assert all(torch.equal(p, before[n]) for n, p in stage.named_parameters())
    assert len(run_loop(stage, ragged_samples([5, 6]), dtype="fp16").gradients) == 1


def untrained(sample):
    return {**sample, "labels": np.full_like(sample["labels"], -100)}


def test_a_step_without_a_trained_token_is_counted_and_leaves_weights_and_optimizer_alone(stage):
    """T8: fails when the mean over no token is taken (0 / 0), or Adam steps by its momentum alone.

    `encode` drops such samples (see test_encode).
    """
    samples = ragged_samples([9, 14, 5])
    samples = [samples[0], untrained(samples[1]), samples[2]]

    def after(num_steps):
        made = copy.deepcopy(stage)
        optimizer = torch.optim.AdamW(list(made.trainable_parameters().values()), lr=0.01)
        run = run_loop(made, samples, max_steps=num_steps, optimizer=optimizer)
        weights = flat({name: p.detach() for name, p in made.named_parameters()})
        return run, weights, flat({str(i): state["exp_avg"] for i, state in enumerate(optimizer.state.values())})

    (_, first, first_moments), (_, second, second_moments), (run, third, _) = map(after, (1, 2, 3))
    assert torch.equal(first, second) and torch.equal(first_moments, second_moments)
    assert not torch.equal(second, third)
    assert [r.num_units == 0 for r in run.results] == [False, True, False]
    assert [r.num_samples for r in run.results] == [1, 1, 1]
    assert float(run.results[1].loss_sum) == float(run.results[1].grad_norm) == 0.0
    assert len(run.gradients) == 2


def test_a_step_without_a_trained_token_is_skipped_under_fp16_too(stage):
    samples = ragged_samples([9, 14])
    run = run_loop(stage, [untrained(samples[0]), samples[1]], max_steps=2, dtype="fp16")
    assert [r.num_units == 0 for r in run.results] == [True, False]
    assert len(run.gradients) == 1


def test_a_micro_batch_without_a_trained_token_adds_nothing(stage):
    samples = ragged_samples([9, 14, 5])
    wanted, loss = gradient_of(stage, samples[:1], batch_size=1)
    mixed = [samples[0], untrained(samples[1]), untrained(samples[2])]
    got, mixed_loss = gradient_of(stage, mixed, batch_size=1, accumulative_counts=3)
    assert relative(got, wanted) <= 1e-6
    assert mixed_loss == pytest.approx(loss, rel=1e-6)

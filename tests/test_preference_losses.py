"""Losses on pairs, against the papers' formulas written out here in plain Python floats, and their gradients."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medtune.preference_losses import (
    PAIR_LOSSES,
    PER_TOKEN,
    answer_log_probs,
    dpo_loss,
    kto_loss,
    orpo_loss,
    ranking_loss,
    simpo_loss,
)

CHOSEN = [1.3, -0.4, 2.0, -3.1, 0.0]
REJECTED = [0.2, 0.5, -1.0, -3.0, 0.0]
BETA, SMOOTHING = 0.3, 0.15


def logistic(x):
    return 1 / (1 + math.exp(-x))


def nll(x):
    """-log sigmoid(x)."""
    return math.log1p(math.exp(-x))


def exo(c, r):
    won = logistic(BETA * (c - r))
    return won * math.log(won / (1 - SMOOTHING)) + (1 - won) * math.log((1 - won) / SMOOTHING)


def kto_pair(c, r):
    good = max(0, sum(CHOSEN) / 5)
    bad = max(0, sum(REJECTED) / 5)
    return 1 - logistic(BETA * (c - bad)) + 1 - logistic(BETA * (good - r))


BY_HAND = {
    "sigmoid": lambda c, r: (1 - SMOOTHING) * nll(BETA * (c - r)) + SMOOTHING * nll(BETA * (r - c)),
    "hinge": lambda c, r: max(0, 1 - BETA * (c - r)),
    "ipo": lambda c, r: (c - r - 1 / (2 * BETA)) ** 2,
    "robust": lambda c, r: (
        ((1 - SMOOTHING) * nll(BETA * (c - r)) - SMOOTHING * nll(BETA * (r - c))) / (1 - 2 * SMOOTHING)
    ),
    "kto_pair": kto_pair,
    "nca_pair": lambda c, r: nll(BETA * c) + nll(-BETA * c) / 2 + nll(-BETA * r) / 2,
    "bco_pair": lambda c, r: nll(BETA * c) + nll(-BETA * r),
    "sppo_hard": lambda c, r: (c - 1 / (2 * BETA)) ** 2 + (r + 1 / (2 * BETA)) ** 2,
    "exo_pair": exo,
    "apo_zero": lambda c, r: 1 - logistic(BETA * c) + logistic(BETA * r),
    "apo_down": lambda c, r: logistic(BETA * c) + 1 - logistic(BETA * (c - r)),
}


def check(loss, by_hand, *inputs):
    """A loss and its gradient, in fp64, equal a sum of plain floats and its central differences."""
    tensors = [torch.tensor(values, dtype=torch.float64, requires_grad=True) for values in inputs]
    value = loss(*tensors)
    value.backward()
    assert value.item() == pytest.approx(by_hand(*inputs), rel=2e-6)
    step = 1e-5
    for number, values in enumerate(inputs):
        for i in range(len(values)):
            ends = []
            for sign in (1, -1):
                moved = [list(other) for other in inputs]
                moved[number][i] += sign * step
                ends.append(by_hand(*moved))
            assert tensors[number].grad[i].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=3e-5)


@pytest.mark.parametrize("kind", PAIR_LOSSES)
def test_a_loss_of_the_dpo_family_is_its_papers_formula(kind):
    values = [BY_HAND[kind](c, r) for c, r in zip(CHOSEN, REJECTED, strict=True)]
    got = dpo_loss(torch.tensor(CHOSEN), torch.tensor(REJECTED), kind, BETA, SMOOTHING)
    assert got.item() == pytest.approx(sum(values), rel=1e-6)


@pytest.mark.parametrize("kind", sorted(set(PAIR_LOSSES) - {"kto_pair", "hinge"}))
def test_the_gradient_of_a_dpo_loss_is_that_of_the_formula(kind):
    check(
        lambda c, r: dpo_loss(c, r, kind, BETA, SMOOTHING),
        lambda c, r: sum(BY_HAND[kind](a, b) for a, b in zip(c, r, strict=True)),
        CHOSEN,
        REJECTED,
    )


@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=1, max_size=6))
@settings(max_examples=50)
def test_a_better_chosen_answer_never_costs_more(pairs):
    chosen, rejected = (torch.tensor(x) for x in zip(*pairs, strict=True))
    for kind in ("sigmoid", "hinge", "bco_pair", "apo_zero"):
        before = dpo_loss(chosen, rejected, kind, BETA)
        assert dpo_loss(chosen + 1, rejected, kind, BETA) <= before + 1e-5
        assert torch.isfinite(before)


@pytest.mark.parametrize("kind", ["ranking", "focal"])
@pytest.mark.parametrize("margin", [None, [0.5, 0.0, 1.0, 0.2, 2.0]])
@pytest.mark.parametrize("centre", [0.0, 0.01])
def test_the_ranking_loss_is_its_formula(kind, margin, centre):
    def by_hand(chosen, rejected):
        total = 0.0
        for c, r, m in zip(chosen, rejected, margin or [0.0] * 5, strict=True):
            probability = logistic(c - r - m)
            weight = (1 - 2 * max(probability - 0.5, 0)) ** 2 if kind == "focal" else 1
            total += -math.log(probability) * weight + centre * (c + r) ** 2
        return total

    given_margin = None if margin is None else torch.tensor(margin)
    chosen = [1.31, -0.4, 2.0, -3.1, 0.7]
    check(lambda c, r: ranking_loss(c, r, given_margin, kind, centre), by_hand, chosen, REJECTED)


def test_the_kto_loss_is_its_formula():
    good, point = [True, False, True, False, False], 0.4

    def by_hand(ratios):
        total = 0.0
        for ratio, is_good in zip(ratios, good, strict=True):
            value = logistic(BETA * (ratio - point)) if is_good else logistic(BETA * (point - ratio))
            total += (1.5 if is_good else 0.5) * (1 - value)
        return total

    check(lambda r: kto_loss(r, torch.tensor(good), torch.tensor(point), BETA, 1.5, 0.5), by_hand, CHOSEN)


def test_the_orpo_loss_is_its_formula_also_near_certainty():
    def by_hand(chosen, rejected):
        total = 0.0
        for c, r in zip(chosen, rejected, strict=True):
            odds = [math.log(math.exp(x) / (1 - math.exp(x))) for x in (c, r)]
            total += nll(odds[0] - odds[1])
        return total

    check(orpo_loss, by_hand, [-0.7, -1.9, -0.02, -4.0], [-2.0, -0.3, -1.0, -5.0])
    edge = orpo_loss(torch.tensor([-1e-9]), torch.tensor([-80.0]))
    assert torch.isfinite(edge) and edge >= 0


def test_the_simpo_loss_is_its_formula():
    def by_hand(chosen, rejected):
        scaled = [2.5 * (c - r) - 1.4 for c, r in zip(chosen, rejected, strict=True)]
        return sum(0.9 * nll(x) + 0.1 * nll(-x) for x in scaled)

    check(lambda c, r: simpo_loss(c, r, 2.5, 1.4, 0.1), by_hand, [-0.7, -1.9, -0.2], [-2.0, -0.3, -1.0])


def test_log_probabilities_are_summed_by_answer_and_an_answer_without_tokens_has_none():
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 11), torch.tensor([3, 0, 10, 10, 5, 1])
    answer_of = torch.tensor([2, 0, 0, 2, 2, 3])
    got = answer_log_probs(logits.to(torch.bfloat16), targets, answer_of, 4)
    every = logits.to(torch.bfloat16).double().log_softmax(-1)[range(6), targets]
    wanted = [every[1] + every[2], 0.0, every[0] + every[3] + every[4], every[5]]
    assert got.dtype == torch.float32
    assert got.tolist() == pytest.approx([float(x) for x in wanted], rel=1e-6)


# ---------------------------------------------------------------- TRL


@pytest.fixture(scope="module")
def goldens():
    """What TRL 1.16 computed: benchmarks/trl_goldens.py made the file."""
    return json.loads((Path(__file__).parent / "models" / "trl_goldens.json").read_text(encoding="utf-8"))


def equals(golden, loss, *inputs):
    """A loss in fp32, as a mean over its units, and its gradient, equal TRL's in fp64."""
    tensors = [torch.tensor(values, requires_grad=True) for values in inputs]
    value = loss(*tensors)
    value.backward()
    assert value.item() == pytest.approx(golden["loss"], rel=1e-6)
    gradient = [g for tensor in tensors for g in tensor.grad.tolist()]
    assert gradient == pytest.approx(golden["gradient"], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("kind", sorted(set(PAIR_LOSSES) - {"kto_pair"}))  # TRL has no kto_pair any more
def test_a_dpo_loss_and_its_gradient_are_trls(kind, goldens):
    beta, smoothing = goldens["settings"]["beta"], goldens["settings"]["label_smoothing"]
    smoothing = 0.0 if kind == "sigmoid" else smoothing  # which TRL's sigmoid does not know
    reference, num_tokens = torch.tensor(goldens["reference"]), torch.tensor(goldens["num_tokens"])

    def loss(policy):
        ratio = policy - reference
        scaled = ratio / num_tokens if kind in PER_TOKEN else ratio
        return dpo_loss(scaled[:4], scaled[4:], kind, beta, smoothing) / 4

    equals(goldens["dpo"][kind], loss, goldens["policy"])


def test_the_kto_loss_and_its_gradient_are_trls(goldens):
    golden, reference = goldens["kto"], torch.tensor(goldens["reference"])
    shifted = torch.tensor(golden["policy_kl"]) - torch.tensor(golden["reference_kl"])
    assert shifted.mean() > 0
    good, (desirable, undesirable) = torch.tensor(golden["good"]), goldens["settings"]["weights"]

    def loss(policy):
        point = shifted.mean().clamp(min=0)
        return kto_loss(policy - reference, good, point, goldens["settings"]["beta"], desirable, undesirable) / 8

    equals(golden, loss, goldens["policy"])


def test_the_orpo_and_simpo_losses_and_their_gradients_are_trls(goldens):
    settings = goldens["settings"]
    means = [x / n for x, n in zip(goldens["policy"], goldens["num_tokens"], strict=True)]
    equals(goldens["orpo"], lambda m: settings["beta"] * orpo_loss(m[:4], m[4:]) / 4, means)
    options = (settings["beta"], settings["gamma"], settings["label_smoothing"])
    equals(goldens["simpo"], lambda m: simpo_loss(m[:4], m[4:], *options) / 4, means)

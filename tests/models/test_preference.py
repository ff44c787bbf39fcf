"""DPO, ORPO, SimPO and KTO on a model, against plain loops over transformers and PEFT that are written out here."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import flat, ranks, relative, run_loop, tiny_llama
from peft import LoraConfig

from medtune.build import check
from medtune.data.collate import flatten
from medtune.errors import EnvironmentFault
from medtune.models.kto import KTO
from medtune.models.preference import DPO, ORPO, SimPO
from medtune.preference_losses import PAIR_LOSSES

BETA, SMOOTHING = 0.3, 0.15
LENGTHS = ((9, 4), (3, 12), (7, 7), (1, 5))  # tokens of the two answers of each pair


def sample(ids, prompt_length, origin):
    labels = np.where(np.arange(len(ids)) < prompt_length, -100, ids)
    return {"input_ids": ids.astype(np.int32), "labels": labels, "origin": origin}


def pairs(lengths=LENGTHS, seed=0):
    """Chosen, rejected, chosen, ...; two answers behind one prompt. Token 0, which a model may pad with, is in them."""
    rng = np.random.default_rng(seed)
    samples = []
    for i, both in enumerate(lengths):
        prompt = rng.integers(0, 20, rng.integers(2, 8))
        samples += [sample(np.concatenate([prompt, rng.integers(0, 20, n)]), len(prompt), f"p:{i + 1}") for n in both]
    return samples


def labelled(seed=0):
    """Eight labelled answers, each prompt also with the next one's answer."""
    samples = pairs(seed=seed)
    told = []
    for i, own in enumerate(samples):
        other = samples[(i + 3) % len(samples)]
        start, begin = (int((s["labels"] >= 0).argmax()) for s in (own, other))
        ids = np.concatenate([own["input_ids"][:start], other["input_ids"][begin:]])
        told.append({**own, "good": i % 3 != 1, "mismatched": sample(ids, start, own["origin"])})
    return told


def stage(kind=DPO, lora=True, dropout=0.0, **settings):
    """The stage on a model whose adapter (or weights) has moved away from the reference."""
    llm = tiny_llama(attention_dropout=dropout, vocab_size=20)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear") if lora else None
    settings = {"use_activation_checkpointing": False, "torch_dtype": "fp32", **settings}
    model = kind(llm, config, **settings)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.trainable_parameters().values():
            parameter += 0.03 * torch.randn(parameter.shape, generator=generator)
    return model.train()


def by_hand(model, samples):
    """(N,) log ratio, (N,) mean log-probability and (N,) log-probability, one padded row at a time."""
    base, policy, reference = tiny_llama(vocab_size=20), [], []
    for i, one in enumerate(samples):
        ids, labels = (torch.from_numpy(one[name].astype(np.int64)) for name in ("input_ids", "labels"))
        pad = torch.zeros(3 * (i % 2), dtype=torch.long)  # on the right, of every second row
        mask = torch.cat([torch.ones_like(ids), pad])[None]
        row = torch.cat([ids, pad])[None]
        at = (labels >= 0).nonzero()[:, 0]
        for llm, told in ((model.llm, policy), (base, reference)):
            logits = llm(input_ids=row, attention_mask=mask, use_cache=False).logits[0, at - 1]
            told.append(logits.log_softmax(-1)[range(len(at)), labels[at]])
    log_probs = torch.stack([told.sum() for told in policy])
    ratio = log_probs - torch.stack([told.sum() for told in reference]).detach()
    return ratio, torch.stack([told.mean() for told in policy]), log_probs


def kto_pair(c, r):
    good, bad = c.mean().clamp(min=0), r.mean().clamp(min=0)
    return 2 - torch.sigmoid(BETA * (c - bad)) - torch.sigmoid(BETA * (good - r))


def exo_pair(c, r):
    won = torch.sigmoid(BETA * (c - r))
    return won * torch.log(won / (1 - SMOOTHING)) + (1 - won) * torch.log((1 - won) / SMOOTHING)


def nll(x):
    return torch.log1p(torch.exp(-x))


FORMULAS = {
    "sigmoid": lambda c, r: (1 - SMOOTHING) * nll(BETA * (c - r)) + SMOOTHING * nll(BETA * (r - c)),
    "hinge": lambda c, r: F.relu(1 - BETA * (c - r)),
    "ipo": lambda c, r: (c - r - 1 / (2 * BETA)) ** 2,
    "robust": lambda c, r: (
        ((1 - SMOOTHING) * nll(BETA * (c - r)) - SMOOTHING * nll(BETA * (r - c))) / (1 - 2 * SMOOTHING)
    ),
    "kto_pair": kto_pair,
    "nca_pair": lambda c, r: nll(BETA * c) + nll(-BETA * c) / 2 + nll(-BETA * r) / 2,
    "bco_pair": lambda c, r: nll(BETA * c) + nll(-BETA * r),
    "sppo_hard": lambda c, r: (c - 0.5 / BETA) ** 2 + (r + 0.5 / BETA) ** 2,
    "exo_pair": exo_pair,
    "apo_zero": lambda c, r: 1 - torch.sigmoid(BETA * c) + torch.sigmoid(BETA * r),
    "apo_down": lambda c, r: torch.sigmoid(BETA * c) + 1 - torch.sigmoid(BETA * (c - r)),
}


def same_as(model, loss, wanted):
    """A stage's loss and gradients equal those of a loss made by hand."""
    parameters = model.trainable_parameters()
    got = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    hand = dict(zip(parameters, torch.autograd.grad(wanted, list(parameters.values())), strict=True))
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert relative(flat(got), flat(hand)) < 2e-6


@pytest.mark.parametrize("loss_type", PAIR_LOSSES)
def test_a_dpo_loss_and_its_gradients_are_those_of_a_plain_loop(loss_type):
    model = stage(loss_type=loss_type, beta=BETA, label_smoothing=SMOOTHING, sft_weight=0.25)
    samples = pairs()
    ratio, means, _ = by_hand(model, samples)
    scaled = ratio / torch.tensor([(s["labels"] >= 0).sum() for s in samples]) if loss_type == "ipo" else ratio
    wanted = FORMULAS[loss_type](scaled[0::2], scaled[1::2]).sum() - 0.25 * means[0::2].sum()
    output = model(flatten(samples))
    same_as(model, output.loss_sum, wanted)
    assert output.num_units == 4
    told = {name: float(value) / 4 for name, value in output.logs.items()}
    metrics = model.metrics(output.loss_sum.item() / 4, told)
    assert metrics["margin"] == pytest.approx(BETA * (ratio[0::2] - ratio[1::2]).mean().item(), rel=1e-4)
    assert metrics["accuracy"] == (ratio[0::2] > ratio[1::2]).float().mean().item()
    assert metrics["chosen_loss"] == pytest.approx(-means[0::2].mean().item(), rel=1e-5)


def test_a_full_fine_tune_is_held_to_a_copy_of_where_it_began():
    model = stage(lora=False, beta=BETA)
    ratio, _, _ = by_hand(model, pairs())
    same_as(model, model(flatten(pairs())).loss_sum, nll(BETA * (ratio[0::2] - ratio[1::2])).sum())
    assert not model.reference.training
    assert not any(name.startswith("reference") for name in model.trainable_parameters())


@pytest.mark.parametrize("lora", [True, False])
def test_orpo_simpo_and_kto_are_plain_loops(lora):
    odds = lambda p: torch.log(torch.exp(p) / (1 - torch.exp(p)))  # noqa: E731
    model = stage(ORPO, lora, beta=0.4)
    _, means, _ = by_hand(model, pairs())
    wanted = -means[0::2].sum() + 0.4 * nll(odds(means[0::2]) - odds(means[1::2])).sum()
    same_as(model, model(flatten(pairs())).loss_sum, wanted)

    model = stage(SimPO, lora, beta=2.5, margin=0.7, label_smoothing=0.1)
    _, means, _ = by_hand(model, pairs())
    scaled = 2.5 * (means[0::2] - means[1::2]) - 0.7
    same_as(model, model(flatten(pairs())).loss_sum, (0.9 * nll(scaled) + 0.1 * nll(-scaled)).sum())

    model = stage(KTO, lora, beta=BETA, desirable_weight=1.5, undesirable_weight=0.5)
    samples = labelled()
    for flip in (False, True):  # the mean is above 0 for one of the two
        moved = [{**s, "mismatched": s["mismatched"] if not flip else s} for s in samples]
        ratio, _, _ = by_hand(model, samples)
        point = by_hand(model, [s["mismatched"] for s in moved])[0].mean().clamp(min=0).detach()
        good = torch.tensor([s["good"] for s in samples])
        value = torch.sigmoid(BETA * torch.where(good, ratio - point, point - ratio))
        micro = flatten(moved)
        model.begin_step([micro], lambda total: total)
        assert model.reference_point.item() == pytest.approx(point.item(), rel=1e-4, abs=1e-6)
        output = model(micro)
        same_as(model, output.loss_sum, (torch.where(good, 1.5, 0.5) * (1 - value)).sum())
        assert output.num_units == 8 and output.logs["good"] == 5


def test_an_answer_does_not_see_the_others_of_its_row():
    model = stage(beta=BETA)
    samples = pairs()
    together = model(flatten(samples))
    alone = [model(flatten(samples[i : i + 2])) for i in range(0, 8, 2)]
    assert together.loss_sum.item() == pytest.approx(sum(o.loss_sum.item() for o in alone), rel=1e-6)
    for name in together.logs:
        assert together.logs[name].item() == pytest.approx(sum(o.logs[name].item() for o in alone), rel=1e-5)


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_reference_is_a_frozen_copy_bit_for_bit_and_has_no_dropout(lora, dtype):
    model = stage(lora=lora, dropout=0.5, torch_dtype=dtype)
    untouched = DPO(tiny_llama(vocab_size=20), None, use_activation_checkpointing=False, torch_dtype=dtype).eval()
    micro = flatten(pairs())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for mode in (True, False):
        model.train(mode)
        reference = model.reference_answers(micro)
        assert torch.equal(reference.log_probs, untouched.answers(micro).log_probs)
        assert not reference.log_probs.requires_grad
        assert model.llm.training is mode
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(p.requires_grad for name, p in model.llm.named_parameters() if "lora_" in name)
    model.train()
    assert not torch.equal(model.answers(micro).log_probs, model.answers(micro).log_probs)  # the policy has it


def test_training_begins_where_the_reference_is():
    model = DPO(tiny_llama(vocab_size=20), LoraConfig(r=4, target_modules="all-linear"), torch_dtype="fp32")
    output = model.train()(flatten(pairs()))
    assert output.loss_sum.item() == pytest.approx(4 * math.log(2), rel=1e-7)
    assert output.logs["chosen_reward"] == 0 and output.logs["rejected_reward"] == 0


def test_activation_checkpointing_changes_no_gradient():
    gradients = []
    for recompute in (False, True):
        model = stage(beta=BETA, use_activation_checkpointing=recompute)
        model(flatten(pairs())).loss_sum.backward()
        gradients.append(flat({name: p.grad for name, p in model.trainable_parameters().items()}))
    assert torch.equal(*gradients)


def test_bf16_is_near_fp32():
    losses = []
    for dtype in ("fp32", "bf16"):
        losses.append(stage(beta=BETA, torch_dtype=dtype)(flatten(pairs())).loss_sum.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


def moved(kind, samples, batch_size, accumulative_counts, size):
    """Gradient and sums of one step of the real loop."""
    packs = [list(range(i, i + size)) for i in range(0, len(samples), size)]
    run = run_loop(
        stage(kind, beta=BETA), samples, batch_size=batch_size, accumulative_counts=accumulative_counts, packs=packs
    )
    (result,) = run.results
    return flat(run.gradients[0]), result.loss_sum.item(), result.num_units


@pytest.mark.parametrize(
    ("kind", "samples", "size", "units"), [(DPO, pairs, 2, 4), (ORPO, pairs, 2, 4), (KTO, labelled, 2, 8)]
)
def test_a_step_does_not_depend_on_how_it_is_cut_into_micro_batches_or_ranks(kind, samples, size, units):
    gradient, loss, num_units = moved(kind, samples(), 4, 1, size)
    assert num_units == units
    cuts = [moved(kind, samples(), 1, 4, size), moved(kind, samples(), 2, 2, size)]
    cuts += ranks(2, moved, kind, samples(), 1, 2, size)
    for other, other_loss, other_units in cuts:
        assert relative(other, gradient) < 2e-6
        assert (other_loss, other_units) == (pytest.approx(loss, rel=1e-6), units)


def test_a_step_that_is_not_finite_names_the_rows_of_its_pairs():
    model = stage()
    with torch.no_grad():
        next(iter(model.trainable_parameters().values()))[:] = math.nan
    with pytest.raises(EnvironmentFault, match=r"Rows: p:1\."):
        run_loop(model, pairs()[:2], packs=[[0, 1]])


def test_a_checkpoint_of_a_full_fine_tune_leaves_the_reference_out(tmp_path):
    from safetensors.torch import load_file

    model = stage(lora=False)
    model.save_pretrained(tmp_path)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "reference" in name]


def test_the_reference_does_not_move_with_the_weights():
    model = stage(lora=False)
    before = copy.deepcopy(model.reference).state_dict()
    run_loop(model, pairs(), packs=[[0, 1, 2, 3]], max_steps=2)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.reference.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"type": DPO, "lora_variant": "pissa"}, "pissa"),
        ({"type": KTO, "lora_variant": "pissa"}, "pissa"),
        ({"type": DPO, "loss_type": "exo_pair"}, "exo_pair needs one above 0"),
        ({"type": DPO, "loss_type": "robust", "label_smoothing": 0.5}, "robust needs one below 0.5"),
        ({"type": DPO, "loss_type": "sigmod"}, "Did you mean 'sigmoid'"),
        ({"type": DPO, "beta": 0}, "a number above 0"),
        ({"type": DPO, "bta": 1}, "takes no such argument"),
        ({"type": DPO, "torch_dtype": "fp31"}, "'fp31' is none of"),
        ({"type": SimPO, "margin": -1}, "0 or more"),
        ({"type": KTO, "desirable_weight": 0}, "a number above 0"),
    ],
)
def test_a_setting_that_cannot_work_is_told_before_a_weight_is_loaded(settings, told):
    (fault,) = check({"model": {"llm": None, "lora": {"r": 4}, **settings}})
    assert told in fault

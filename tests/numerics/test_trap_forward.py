"""Numerics traps of the model call and of the trained weights; the table is docs/design/numerics.md."""

from __future__ import annotations

import pytest
import torch
from helpers import ragged_samples, run_loop, tiny_llama
from peft import LoraConfig

from medtune.data.collate import collate_step, flatten
from medtune.engine.validation import evaluate
from medtune.models import attention
from medtune.models.sft import SupervisedFinetune

LENGTHS = [12, 3, 31, 7, 20]


def base(**changes):
    model = tiny_llama(**changes)
    model.set_attn_implementation(attention.NAME)
    return model


def lora(**changes):
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **changes})


# ---------------------------------------------------------------- T5


def nats_one_by_one(samples):
    """Summed loss of each sample in a row of its own, by transformers' own attention."""
    model = tiny_llama().eval()
    total = 0.0
    for sample in samples:
        ids, labels = (torch.from_numpy(sample[name]).long()[None] for name in ("input_ids", "labels"))
        total += float(model(input_ids=ids, labels=labels, num_items_in_batch=1).loss)
    return total


@torch.no_grad()
@pytest.mark.parametrize("with_adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_a_packed_row_runs_without_cache_and_mask_and_loses_what_its_samples_lose_alone(with_adapter, training):
    """T5: fails when the model runs with use_cache=True, or is given an all-ones mask, on a packed row.

    Either brings transformers' own attention back to naive packing, where a sample sees those before it; the last
    lines show that this loss could tell.
    """
    samples = ragged_samples(LENGTHS)
    wanted = nats_one_by_one(samples)
    made = SupervisedFinetune(base(), lora() if with_adapter else None, False, "fp32").train(training)
    seen = []
    inner = made.llm.get_base_model() if with_adapter else made.llm
    inner.register_forward_pre_hook(lambda module, args, options: seen.append(options), with_kwargs=True)
    micro = flatten(samples)
    assert float(made(micro).loss_sum) == pytest.approx(wanted, rel=1e-6)
    assert seen[0]["use_cache"] is False and seen[0].get("attention_mask") is None
    naive = tiny_llama().eval()(input_ids=micro.input_ids, position_ids=micro.position_ids, use_cache=True)
    logits = naive.logits[0, micro.predict_at]
    naive_nats = float(torch.nn.functional.cross_entropy(logits, micro.targets, reduction="sum"))
    assert abs(naive_nats - wanted) > 1e-3 * wanted


# ---------------------------------------------------------------- T16


def long_run(dtype):
    """500 steps of full fine-tuning at a small rate; the model comes in bf16, as it is loaded on a GPU."""
    llm = base(hidden_size=32, intermediate_size=48, num_attention_heads=2, num_key_value_heads=1)
    made = SupervisedFinetune(llm.to(torch.bfloat16), None, False, dtype).train()
    start = {name: p.detach().clone() for name, p in made.trainable_parameters().items()}
    optimizer = torch.optim.AdamW(list(made.trainable_parameters().values()), lr=1e-5, weight_decay=0)
    samples = ragged_samples([9, 14, 5, 17])
    run = run_loop(made, samples, batch_size=4, max_steps=500, optimizer=optimizer, dtype=dtype)
    return made, start, optimizer, [float(r.loss_sum) / r.num_units for r in run.results]


@pytest.mark.slow
def test_500_small_steps_move_every_weight_also_in_bf16():
    """T16: fails when weights or optimizer state are kept in bf16, where 1e-5 added to 0.1 rounds to nothing."""
    losses = {}
    for dtype in ("fp32", "bf16"):
        made, start, optimizer, losses[dtype] = long_run(dtype)
        for name, p in made.trainable_parameters().items():
            if "embed" not in name:  # of the embedding only the rows of tokens that occur
                assert float((p.detach() != start[name]).float().mean()) > 0.99, name
                assert float((p.detach() - start[name]).float().abs().mean()) > 1e-4, name
        states = [value for state in optimizer.state.values() for value in state.values() if value.dim()]
        assert {value.dtype for value in states} == {torch.float32}
    assert losses["bf16"][-1] < losses["bf16"][0] - 0.01
    assert losses["bf16"][-1] == pytest.approx(losses["fp32"][-1], rel=5e-3)


# ---------------------------------------------------------------- T25


@torch.no_grad()
@pytest.mark.parametrize("variant", [{}, {"use_rslora": True}, {"init_lora_weights": "gaussian"}], ids=str)
def test_before_the_first_step_an_adapter_changes_no_bit_of_the_base_and_no_norm_is_trained(variant):
    """T25: fails when B does not begin at 0, or a norm of the base is trained too."""
    micro = flatten(ragged_samples(LENGTHS))
    made = SupervisedFinetune(base(), lora(**variant), False, "fp32").eval()
    wanted = SupervisedFinetune(base(), None, False, "fp32").eval()(micro)
    assert torch.equal(made(micro).loss_sum, wanted.loss_sum)
    assert all(".lora_A." in name or ".lora_B." in name for name in made.trainable_parameters())
    assert len(made.trainable_parameters()) == 2 * 7 * 2  # layers, linear layers in each, A and B


def test_validation_in_the_midst_of_training_draws_no_dropout():
    """T25: fails when an evaluation runs in the mode that training left the model in."""
    samples = ragged_samples(LENGTHS)
    losses = []
    for dropout in (0.5, 0.0):
        torch.manual_seed(1)
        made = SupervisedFinetune(base(), lora(lora_dropout=dropout), False, "fp32").train()
        for name, p in made.trainable_parameters().items():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.1)
        losses.append(evaluate(made, [collate_step([samples])]).loss)
        assert made.training and all(module.training for module in made.modules())
    assert losses[0] == losses[1]


@torch.no_grad()
@pytest.mark.parametrize("settings, scale", [({}, 2), ({"use_rslora": True}, 4), ({"lora_alpha": 3}, 3 / 4)])
def test_an_adapters_part_is_scaled_by_alpha_and_rank_once(settings, scale):
    """T25: fails when alpha / r (rsLoRA: alpha / sqrt(r)) is left out or taken twice, or A and B are not in fp32."""
    made = SupervisedFinetune(base().to(torch.bfloat16), lora(**settings), False, "fp32").eval()
    layer = made.llm.get_base_model().model.layers[0].mlp.up_proj
    x = torch.randn(3, 64)
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    part = x @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T * scale
    assert part.dtype == torch.float32
    torch.testing.assert_close(layer.float()(x), layer.base_layer(x) + part, rtol=1e-5, atol=1e-5)

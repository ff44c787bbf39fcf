"""Attention inside each sample of a flat row equals the stock model on each sample alone, forward and backward.

What is wanted always comes from the same weights under transformers' own attention, one sample at a time.
"""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import VOCAB, flat, ragged_samples, relative
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from medtune.data.collate import flatten
from medtune.models import attention
from medtune.models.load import PACKED_FAMILIES, supports_packed_rows

LENGTHS = [9, 2, 17, 5]
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCAB,
    "max_position_embeddings": 128,
    "sliding_window": 4,
    "use_sliding_window": True,
    "layer_types": ["sliding_attention", "full_attention"],
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "moe_layer_start_index": 1,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": 5.0,  # low enough to matter at this size
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
FEATURES = {
    "grouped queries": ("llama", {}),
    "query and key norms": ("qwen3", {"head_dim": 16}),
    "sliding window": ("mistral", {"sliding_window": 3}),
    "softcap and sliding window": ("gemma2", {"head_dim": 16, "query_pre_attn_scalar": 16}),
}


def tiny(family: str, **changes):
    """A random model of a family, with whichever of SIZES its config knows; weights large enough to tell."""
    known = AutoConfig.for_model(family)
    config = AutoConfig.for_model(family, **{**{k: v for k, v in SIZES.items() if hasattr(known, k)}, **changes})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return model


def packed_twin(model):
    twin = copy.deepcopy(model)
    twin.set_attn_implementation(attention.NAME)
    return twin


def packed_logits(model, micro, **options):
    return model(
        input_ids=micro.input_ids,
        position_ids=micro.position_ids,
        cu_seq_lens_q=micro.cu_seqlens,
        cu_seq_lens_k=micro.cu_seqlens,
        max_length_q=micro.max_seqlen,
        max_length_k=micro.max_seqlen,
        use_cache=False,
        **options,
    ).logits[0]


def logits_one_by_one(model, samples):
    rows = [torch.from_numpy(s["input_ids"]).long()[None] for s in samples]
    return torch.cat([model(input_ids=row, use_cache=False).logits[0] for row in rows])


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "activation checkpointing"])
@pytest.mark.parametrize("feature", FEATURES)
def test_a_packed_row_equals_each_sample_alone_in_logits_and_gradients(feature, checkpointing):
    """T4: fails when attention goes over the bounds of the samples in a packed row."""
    family, changes = FEATURES[feature]
    model = tiny(family, **changes)
    twin = packed_twin(model)
    if checkpointing:
        twin.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        twin.train()
    samples = ragged_samples(LENGTHS)
    wanted, got = logits_one_by_one(model, samples), packed_logits(twin, flatten(samples))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    weights = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    (wanted * weights).sum().backward()
    (got * weights).sum().backward()
    assert gradients(twin).keys() == gradients(model).keys()
    assert relative(flat(gradients(twin)), flat(gradients(model))) < 1e-6


@pytest.mark.parametrize("feature", FEATURES)
def test_another_text_in_one_sample_changes_no_bit_of_the_others(feature):
    """T4: fails when a token attends to any other sample of its row."""
    family, changes = FEATURES[feature]
    model = packed_twin(tiny(family, **changes))
    samples = ragged_samples(LENGTHS)
    with torch.no_grad():
        before = packed_logits(model, flatten(samples))
        samples[1]["input_ids"] = (samples[1]["input_ids"] + 1) % VOCAB
        after = packed_logits(model, flatten(samples))
    a, b = LENGTHS[0], sum(LENGTHS[:2])
    assert not torch.equal(before[a:b], after[a:b])
    assert torch.equal(before[:a], after[:a])
    assert torch.equal(before[b:], after[b:])


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(PACKED_FAMILIES))
def test_every_family_that_is_packed_gives_the_logits_of_each_sample_alone(family):
    if family not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {family}")
    model = tiny(family)
    twin = packed_twin(model)
    assert supports_packed_rows(model)
    samples = ragged_samples(LENGTHS)
    with torch.no_grad():
        wanted, got = logits_one_by_one(model, samples), packed_logits(twin, flatten(samples))
    assert relative(got, wanted) < 1e-5


@pytest.mark.slow
def test_a_family_that_would_leak_is_not_packed():
    """Nemotron carries the flag of the attention interface, and its masks still join the samples."""
    model = tiny("nemotron")
    samples = ragged_samples(LENGTHS)
    with torch.no_grad():
        leaking = packed_logits(packed_twin(model), flatten(samples))
        assert relative(leaking, logits_one_by_one(model, samples)) > 0.01
    assert not supports_packed_rows(model)


@pytest.mark.parametrize("feature", FEATURES)
def test_generation_from_padded_prompts_equals_the_stock_model(feature):
    family, changes = FEATURES[feature]
    model = tiny(family, **changes)
    twin = packed_twin(model)
    prompts = [torch.from_numpy(s["input_ids"]).long() for s in ragged_samples([11, 3, 7])]
    longest = max(map(len, prompts))
    ids = torch.stack([torch.cat([torch.zeros(longest - len(p), dtype=torch.long), p]) for p in prompts])
    mask = torch.stack([(torch.arange(longest) >= longest - len(p)).long() for p in prompts])
    options = {"max_new_tokens": 8, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    wanted = model.generate(ids, attention_mask=mask, eos_token_id=None, pad_token_id=0, **options)
    got = twin.generate(ids, attention_mask=mask, eos_token_id=None, pad_token_id=0, **options)
    assert torch.equal(got.sequences, wanted.sequences)
    for step, (mine, stock) in enumerate(zip(got.logits, wanted.logits, strict=True)):
        torch.testing.assert_close(mine, stock, rtol=1e-4, atol=1e-4, msg=f"step {step}")


@pytest.mark.parametrize("feature", FEATURES)
def test_one_prompt_without_padding_and_its_cache_equal_the_stock_model(feature):
    """No mask is drawn here, so the window and the cap must come from the attention itself."""
    family, changes = FEATURES[feature]
    model = tiny(family, **changes)
    twin = packed_twin(model)
    ids = torch.from_numpy(ragged_samples([12])[0]["input_ids"]).long()[None]
    with torch.no_grad():
        torch.testing.assert_close(twin(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
        caches = [m(ids[:, :8], use_cache=True).past_key_values for m in (twin, model)]
        for piece in (ids[:, 8:9], ids[:, 9:12]):  # one token, then several
            got, wanted = (m(piece, past_key_values=c).logits for m, c in zip((twin, model), caches, strict=True))
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_dropout_on_attention_weights_is_applied_and_keeps_the_mean():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 4, 8, 16) for _ in range(3))
    bounds = {"cu_seq_lens_q": torch.tensor([0, 3, 8], dtype=torch.int32)}
    for softcap in (None, 5.0):
        whole, _ = attention.packed_attention(None, q, k, v, None, softcap=softcap, **bounds)
        drawn = [
            attention.packed_attention(None, q, k, v, None, dropout=0.5, softcap=softcap, **bounds)[0]
            for _ in range(400)
        ]
        assert not torch.equal(drawn[0], whole)
        torch.testing.assert_close(torch.stack(drawn).mean(0), whole, rtol=0, atol=0.4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the variable-length kernel runs on a GPU only")
@pytest.mark.parametrize("window", [None, 4])
def test_the_gpu_kernel_equals_the_cpu_path(window):
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 4, 33, 64), torch.randn(1, 2, 33, 64), torch.randn(1, 2, 33, 64)
    bounds = {"cu_seq_lens_q": torch.tensor([0, 9, 11, 28, 33], dtype=torch.int32), "max_length_q": 17}
    wanted, _ = attention.packed_attention(None, q, k, v, None, sliding_window=window, **bounds)
    bounds["cu_seq_lens_q"] = bounds["cu_seq_lens_q"].cuda()
    inputs = [x.cuda().bfloat16() for x in (q, k, v)]
    got, _ = attention.packed_attention(None, *inputs, None, sliding_window=window, **bounds)
    torch.testing.assert_close(got.cpu().float(), wanted, rtol=2e-2, atol=2e-2)

"""Merging: the same logits as base + adapter in plain transformers + PEFT, whatever the adapter and the shards."""
# ruff: noqa: F811  (a fixture is imported and then named as an argument)

from __future__ import annotations

import json
import shutil

import pytest
import torch
from merge_models import TOKENIZER, assert_no_trace, logits, make_adapter, make_base  # noqa: F401
from peft import PeftModel
from transformers import AutoModelForCausalLM, GPT2Config

from medtune import shards
from medtune.errors import ModelError
from medtune.merge import merge
from medtune.models.identity import model_files, model_tensors

KINDS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "rank_pattern": {
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7},
        "alpha_pattern": {"^model.layers.0.*down_proj": 32, "v_proj": 1},
    },
    "dora": {"use_dora": True},
    "modules_to_save": {"modules_to_save": ["lm_head", "embed_tokens", "norm"]},
    "embedding": {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
    "embedding_dora": {"target_modules": ["embed_tokens", "k_proj"], "use_dora": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_merged_logits_equal_base_plus_adapter_in_fp32(kind, make_base, make_adapter, tmp_path, monkeypatch):
    """T18: fails when a scale, a transposition or a pattern of ranks is not the one that was trained with."""
    monkeypatch.setattr(shards, "BLOCK", 500)  # several blocks per tensor
    base = make_base()
    adapter = make_adapter(base, **KINDS[kind])
    report = merge(base, adapter, tmp_path / "out")
    wanted = logits(base, adapter)
    assert (logits(tmp_path / "out") - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert (logits(base) - wanted).abs().max() > 0.1, "the adapter must matter, or this proves nothing"
    assert report.tensors == len(model_tensors(tmp_path / "out")) and report.changed >= 3 and not report.untied


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_base_stays_16_bit_and_each_weight_is_rounded_once(dtype, make_base, make_adapter, tmp_path):
    """T18: fails when the product, or the sum, is computed in 16 bits."""
    base = make_base(dtype=dtype)
    adapter = make_adapter(base)
    merge(base, adapter, tmp_path / "out")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
    wanted = model.merge_and_unload().state_dict()
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert ours.dtype == dtype
    eps = torch.finfo(dtype).eps
    for name, tensor in ours.state_dict().items():
        # Half a unit in the last place, and a hair for the order of summation in fp32.
        assert ((tensor.float() - wanted[name]).abs() <= wanted[name].abs() * eps * 0.5 + 1e-6).all(), name
    difference = (logits(tmp_path / "out") - logits(base, adapter)).abs().max()
    assert difference < 8 * eps * logits(base, adapter).abs().max()


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
    ],
    ids=str,
)
def test_an_adapter_on_tied_embeddings_parts_them_and_keeps_the_logits(settings, make_base, make_adapter, tmp_path):
    """T17: fails when the adapter of one use of a tied weight is merged into both."""
    base = make_base(tied=True)
    adapter = make_adapter(base, **settings)
    report = merge(base, adapter, tmp_path / "out", verify=True)
    assert report.untied
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    wanted = logits(base, adapter)
    assert (logits(tmp_path / "out") - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_an_adapter_that_leaves_tied_embeddings_alone_keeps_them_tied(make_base, make_adapter, tmp_path):
    base = make_base(tied=True)
    report = merge(base, make_adapter(base), tmp_path / "out")
    assert not report.untied and "lm_head.weight" not in model_tensors(tmp_path / "out")


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_of_the_adapter_reach_the_merged_model(tied, make_base, make_adapter, tmp_path):
    base = make_base(tied=tied)
    adapter = make_adapter(base, resize=101)
    report = merge(base, adapter, tmp_path / "out", verify=True)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 101
    wanted = logits(base, adapter, resize=101)
    assert (logits(tmp_path / "out") - wanted).abs().max() < 1e-5 * wanted.abs().max() and not report.untied


def test_conv1d_weights_are_merged_the_other_way_round(make_base, make_adapter, tmp_path):
    config = GPT2Config(vocab_size=97, n_positions=64, n_embd=48, n_layer=2, n_head=4, initializer_range=0.2)
    base = make_base(config=config)
    for use_dora in (False, True):
        adapter = make_adapter(base, f"adapter{use_dora}", target_modules=["c_attn", "c_fc"], use_dora=use_dora)
        out = tmp_path / f"out{use_dora}"
        merge(base, adapter, out)
        wanted = logits(base, adapter)
        assert (logits(out) - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_shards_keep_to_the_size_and_a_sharded_base_merges_alike(make_base, make_adapter, tmp_path):
    base, sharded = make_base(), make_base("sharded", max_shard_size="40KB")
    adapter = make_adapter(base)
    assert len(model_files(sharded)) > 3
    merge(base, adapter, tmp_path / "one")
    report = merge(sharded, adapter, tmp_path / "many", max_shard_size="30KB")
    weights = [file for file in report.files if file.suffix == ".safetensors"]
    assert len(weights) > 3
    assert all(sum(t.nbytes for t in shards.read_header(file)) <= 30_000 for file in weights)
    index = json.loads((tmp_path / "many" / shards.INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in model_tensors(tmp_path / "many").values())
    assert torch.equal(logits(tmp_path / "one"), logits(tmp_path / "many"))


def test_the_adapters_tokenizer_wins_and_the_card_carries_no_paths(make_base, make_adapter, tmp_path):
    base = make_base()
    (base / "LICENSE").write_text("licence of the base")
    (base / "special_tokens_map.json").write_text("{}")
    (base / "tokenizer.model").write_text("vocabulary")
    adapter = make_adapter(base)
    for file in TOKENIZER[:2]:
        shutil.copyfile(base / file, adapter / file)
    (adapter / "chat_template.jinja").write_text("trained on this one")
    merge(base, adapter, tmp_path / "out")
    out = {file.name for file in (tmp_path / "out").iterdir()}
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "trained on this one"
    assert {"LICENSE", "tokenizer.model", "generation_config.json", "README.md"} <= out
    assert "special_tokens_map.json" not in out, "a setting of the base must not override the adapter's"
    record = json.loads((tmp_path / "out" / "medtune.json").read_text())
    assert record["merged"] is True and record["prompt_template"] == "chatml" and record["torch_dtype"] == "float32"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "You are a pharmacist." in card and "diagnos" in card and str(tmp_path) not in card


def test_a_dtype_can_be_asked_for(make_base, make_adapter, tmp_path):
    base = make_base(dtype=torch.bfloat16)
    adapter = make_adapter(base)
    report = merge(base, adapter, tmp_path / "out", dtype="fp32", verify=True)
    assert {tensor.dtype for tensor in model_tensors(tmp_path / "out").values()} == {"F32"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"
    assert report.logits_difference < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_verify_fails_and_leaves_nothing_when_a_scale_is_off(dtype, make_base, make_adapter, tmp_path, monkeypatch):
    base = make_base(dtype=dtype)
    adapter = make_adapter(base)
    merge(base, adapter, tmp_path / "right", verify=True)
    from medtune.models import adapter as module

    monkeypatch.setattr(module, "_scale", lambda *_: 2.2)  # trained with 2.0
    with pytest.raises(ModelError, match="logits differ"):
        merge(base, adapter, tmp_path / "out", verify=True)
    assert_no_trace(tmp_path / "out")

"""What a downloaded model or adapter folder may not ask for, each refused with its reason."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import tiny_llama_folder
from safetensors.torch import save_file

from medtune.build import check
from medtune.errors import ModelError
from medtune.models.checks import check_adapter, check_model
from medtune.models.load import load_llm, load_tokenizer

NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
GOOD = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


@pytest.fixture
def model(tmp_path):
    return tiny_llama_folder(tmp_path / "model")


@pytest.fixture
def adapter(tmp_path):
    """A function that writes an adapter with other settings."""

    def write(**changes):
        save_file({NAME.format("A"): torch.ones(4, 8)}, tmp_path / "adapter_model.safetensors")
        (tmp_path / "adapter_config.json").write_text(json.dumps({**GOOD, **changes}))
        return tmp_path

    return write


def test_an_honest_model_and_adapter_pass(model, adapter):
    check_model(model)
    patterns = {"rank_pattern": {"^model.layers.0.*down_proj": 2}, "target_modules": r".*\.(q|v)_proj"}
    assert check_adapter(adapter(**patterns), ["model.layers.0.mlp.down_proj"])["r"] == 4


@pytest.mark.parametrize(
    "entry",
    [
        {"_attn_implementation_internal": "evil/kernel"},
        {"attn_implementation": "evil/kernel:run"},
        {"text_config": {"_experts_implementation": "evil/kernel@main"}},
        {"model_type": "\x1b[2J"},
        {"\x9b31m": 1},
    ],
    ids=str,
)
def test_a_config_that_asks_for_more_than_data_is_refused(entry, model):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **entry}))
    for call in (check_model, lambda folder: load_llm(str(folder)), lambda folder: load_tokenizer(str(folder))):
        with pytest.raises(ModelError, match=r"config\.json"):
            call(model)


def test_an_adapter_in_a_model_folder_is_refused(model):
    """transformers would load the base that it names, from wherever that is."""
    (model / "adapter_config.json").write_text(json.dumps({**GOOD, "base_model_name_or_path": "evil/base"}))
    with pytest.raises(ModelError, match="in one folder"):
        load_llm(str(model))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "wanted 'LORA'"),
        ({"megatron_config": {"x": 1}, "megatron_core": "os"}, "Megatron"),
        ({"r": 10**9}, "do not fit the tensors"),
        ({"rank_pattern": {"q_proj": 10**9}}, "do not fit the tensors"),
        ({"r": "x"}, "not of the type"),
        ({"layer_replication": [[0, 10**9]]}, "do not fit the tensors"),
        ({"target_modules": r"(([a-z_.0-9]+)+)+!"}, "takes too long"),
        ({"rank_pattern": {r"(([a-z_.0-9]+)+)+!": 4}}, "takes too long"),
        ({"target_modules": "("}, "not a regular expression"),
    ],
    ids=str,
)
def test_an_adapter_that_is_more_than_lora_is_refused(changes, reason, adapter):
    with pytest.raises(ModelError, match=reason):
        check_adapter(adapter(**changes), ["model.layers.0.self_attn.q_proj"])


@pytest.mark.parametrize("load", [load_llm, load_tokenizer])
def test_remote_code_of_a_hub_needs_a_commit(load):
    node = {"type": load, "pretrained_model_name_or_path": "org/model", "trust_remote_code": True}
    for revision in (None, "main", "v1.0"):
        assert "name the commit" in check({"x": {**node, "revision": revision}})[0]
    assert check({"x": {**node, "revision": "0123456789abcdef" * 2 + "01234567"}}) == []
    assert check({"x": {**node, "trust_remote_code": False}}) == []

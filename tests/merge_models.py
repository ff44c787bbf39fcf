"""Small random base models and adapters that PEFT makes, for the tests of merging."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

from medtune.models.identity import fingerprint

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
PROBE = torch.arange(3, 35)[None]
ALL_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture
def make_base(tmp_path, tiny_model_path):
    def make(name="base", dtype=torch.float32, tied=False, max_shard_size="2GB", seed=0, config=None) -> Path:
        config = config or LlamaConfig(
            vocab_size=97,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=tied,
            initializer_range=0.2,
        )
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.save_pretrained(tmp_path / name, max_shard_size=max_shard_size)
        for file in TOKENIZER:
            shutil.copyfile(tiny_model_path / file, tmp_path / name / file)
        return tmp_path / name

    return make


@pytest.fixture
def make_adapter(tmp_path):
    def make(base: Path, name="adapter", resize=None, record=True, **settings) -> Path:
        model = AutoModelForCausalLM.from_pretrained(base)
        if resize:
            model.resize_token_embeddings(resize)
        settings = {"r": 4, "lora_alpha": 8, "target_modules": ALL_LINEARS, "task_type": "CAUSAL_LM", **settings}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_peft_model(model, LoraConfig(**settings))
            torch.manual_seed(1)
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.data += 0.1 * torch.randn_like(parameter)
            model.save_pretrained(tmp_path / name)
        if record:
            base_model = {"name_or_path": str(base), "fingerprint": fingerprint(base)}
            written = {"stage": "sft", "method": "lora", "base_model": base_model, "prompt_template": "chatml"}
            (tmp_path / name / "medtune.json").write_text(json.dumps({**written, "system": "You are a pharmacist."}))
        return tmp_path / name

    return make


@torch.no_grad()
def logits(folder: Path, adapter: Path | None = None, resize: int | None = None) -> torch.Tensor:
    """In plain transformers and PEFT, computed in fp32."""
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    if resize:
        model.resize_token_embeddings(resize)
    if adapter:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = PeftModel.from_pretrained(model, adapter)
    return model.eval()(input_ids=PROBE).logits


def assert_no_trace(out: Path) -> None:
    assert not out.exists()
    assert not [file for file in out.parent.iterdir() if file.name.startswith(".")]

"""An original model is trained, converted and merged by the same commands as any other, in both formats."""

from __future__ import annotations

import json

import legacy_models
import pytest
import torch
from helpers import run_cli, words_of, write_questions
from legacy_models import ORIGINALS, original_folder
from safetensors.torch import load_file
from test_legacy_tokenizers import spm_folder

IDS = (torch.arange(23) * 37 % 500)[None]
CASES = [("internlm2", "InternLM2Tokenizer", False), ("chatglm", "ChatGLMTokenizer", True)]


def base_of(tmp_path, monkeypatch, family, tokenizer_class, as_bin):
    monkeypatch.setattr(legacy_models, "VOCAB", 512)
    sizes = {"padded_vocab_size": 512} if family == "chatglm" else {"vocab_size": 512}
    folder = original_folder(tmp_path / "base", family, as_bin, **sizes)
    tokenizer, _ = spm_folder(tmp_path / "tokenizer", tokenizer_class)
    for file in tokenizer.iterdir():
        file.rename(folder / file.name)
    return folder


def medtune(*words, cwd):
    done = run_cli(*map(str, words), cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@torch.no_grad()
def plain_logits(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert AutoTokenizer.from_pretrained(folder, trust_remote_code=False).encode("dose")
    assert not list(folder.glob("modeling*")) and "auto_map" not in json.loads((folder / "config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    return model.eval()(input_ids=IDS).logits


@pytest.mark.slow
@pytest.mark.parametrize(("family", "tokenizer_class", "as_bin"), CASES)
def test_lora_trains_and_merges_into_both_formats(family, tokenizer_class, as_bin, tmp_path, monkeypatch):
    base = base_of(tmp_path, monkeypatch, family, tokenizer_class, as_bin)
    data = write_questions(tmp_path / "data.jsonl")
    words = words_of(base, data, prompt_template="default", max_steps=2)
    medtune(*words, "--work-dir", tmp_path / "run", cwd=tmp_path)
    medtune("convert", "pth_to_hf", "sft", tmp_path / "run" / "iter_2.pth", tmp_path / "hf", cwd=tmp_path)
    medtune("convert", "merge", base, tmp_path / "hf", tmp_path / "new", "--verify", cwd=tmp_path)
    old = ("convert", "merge", base, tmp_path / "hf", tmp_path / "old", "--verify", "--save-format", "original")
    medtune(*old, cwd=tmp_path)
    published = ORIGINALS[family][2](load_file(tmp_path / "old" / "model.safetensors"), IDS)
    assert torch.allclose(plain_logits(tmp_path / "new"), published, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(published, ORIGINALS[family][2](ORIGINALS[family][1](), IDS), rtol=1e-3, atol=1e-3)
    assert json.loads((tmp_path / "old" / "config.json").read_text())["auto_map"]
    assert (tmp_path / "old" / "tokenizer.model").is_file() and not (base / "ran").exists()


@pytest.mark.slow
def test_a_full_fine_tune_converts_into_both_formats(tmp_path, monkeypatch):
    base = base_of(tmp_path, monkeypatch, "internlm2", "InternLM2Tokenizer", False)
    data = write_questions(tmp_path / "data.jsonl")
    words = words_of(base, data, method="full", prompt_template="default", max_steps=2)
    medtune(*words, "--work-dir", tmp_path / "run", cwd=tmp_path)
    checkpoint = tmp_path / "run" / "iter_2.pth"
    medtune("convert", "pth_to_hf", "sft", checkpoint, tmp_path / "new", cwd=tmp_path)
    medtune("convert", "pth_to_hf", "sft", checkpoint, tmp_path / "old", "--save-format", "original", cwd=tmp_path)
    published = ORIGINALS["internlm2"][2](load_file(tmp_path / "old" / "model.safetensors"), IDS)
    assert torch.allclose(plain_logits(tmp_path / "new"), published, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "old" / "modeling_evil.py").is_file() and not (base / "ran").exists()

"""Numerics traps between training and disk: new tokens, empty and partial tensors; see docs/design/numerics.md."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from helpers import (
    cli_environment,
    ragged_samples,
    run_loop,
    small_config,
    tiny_llama,
    tiny_llama_folder,
    write_questions,
)
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from medtune.engine import checkpoint
from medtune.engine.train import build_runner, prepare_inputs
from medtune.errors import MedtuneError
from medtune.merge import merge
from medtune.models import attention
from medtune.models.load import load_llm
from medtune.models.sft import SupervisedFinetune

NEW_TOKENS = ["<|dose|>", "<|drug|>", "<|time|>"]
RELOAD = """
import sys, torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, out = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
ids = tokenizer("Take <|drug|> of <|dose|> at <|time|>.", add_special_tokens=False, return_tensors="pt").input_ids
with torch.no_grad():
    save_file({"ids": ids, "logits": AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits}, out)
"""


# ---------------------------------------------------------------- T20


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_three_added_tokens_come_back_in_a_fresh_process_with_the_trained_models_logits(tmp_path, method):
    """T20: fails when the rows of new tokens are left out of what is saved, or merged at the base's vocabulary size."""
    base = tiny_llama_folder(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert tokenizer.add_tokens(NEW_TOKENS, special_tokens=True) == 3
    llm = load_llm(str(base), torch_dtype="fp32", device="cpu")
    llm.resize_token_embeddings(len(tokenizer))
    trained_whole = ["embed_tokens", "lm_head"]
    lora = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=trained_whole, task_type="CAUSAL_LM")
    made = SupervisedFinetune(llm, lora if method == "lora" else None, False, "fp32").train()
    samples = ragged_samples([9, 12, 7], vocab=len(tokenizer))
    samples[0]["input_ids"][1:4] = samples[0]["labels"][1:4] = tokenizer.convert_tokens_to_ids(NEW_TOKENS)
    optimizer = torch.optim.AdamW(list(made.trainable_parameters().values()), lr=1e-2)
    run_loop(made, samples, batch_size=3, max_steps=3, optimizer=optimizer)
    saved = tmp_path / "saved"
    made.save_pretrained(saved)
    tokenizer.save_pretrained(saved)
    if method == "lora":
        merge(base, saved, tmp_path / "merged", verify=True)
        saved = tmp_path / "merged"
    done = [sys.executable, "-c", RELOAD, str(saved), str(tmp_path / "told.safetensors")]
    subprocess.run(done, check=True, env=cli_environment(HF_HUB_OFFLINE="1"), capture_output=True)
    told = load_file(tmp_path / "told.safetensors")
    assert set(tokenizer.convert_tokens_to_ids(NEW_TOKENS)) < set(told["ids"][0].tolist())
    with torch.no_grad():
        wanted = made.eval().llm(told["ids"]).logits
    torch.testing.assert_close(told["logits"], wanted, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- T21


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llama_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_questions(tmp_path_factory.mktemp("data") / "questions.jsonl")


def stage(method, **changes):
    llm = tiny_llama(**changes)
    llm.set_attn_implementation(attention.NAME)
    lora = LoraConfig(r=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    return SupervisedFinetune(llm, lora if method == "lora" else None, False, "fp32")


def take_away(made, left):
    """Leave so many rows of a trained weight, as ZeRO-3 leaves its share to each process: none, or a part."""
    parameter = list(made.trainable_parameters().values())[-2]
    parameter.data = parameter.data[:left]


@pytest.mark.filterwarnings("ignore:Adapter .* invalid shape")  # PEFT notices too, and writes all the same
@pytest.mark.parametrize("copy", [False, True], ids=["at once", "in the background"])
@pytest.mark.parametrize("left", [0, 1], ids=["empty", "partial"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_weights_that_are_not_whole_are_not_saved_as_if_they_were(tmp_path, method, left, copy):
    """T21: fails when a parameter that ZeRO-3 has emptied, or left a share of, is written as it is."""
    made = stage(method)
    made.snapshot(copy)(tmp_path / "whole")
    take_away(made, left)
    with pytest.raises(MedtuneError, match="weights were not whole") as raised:
        made.snapshot(copy)(tmp_path / "empty")
    assert raised.value.exit_code == 1


@pytest.mark.filterwarnings("ignore:Adapter .* invalid shape")  # PEFT notices too, and writes all the same
@pytest.mark.parametrize("settings", [{"method": "lora"}, {"method": "full", "torch_dtype": "bf16"}], ids=str)
def test_a_training_whose_weights_are_not_whole_ends_at_its_rehearsal_and_leaves_nothing(
    tmp_path, model, data, settings
):
    """T21: fails when only a later save, or nobody, looks at what was written."""
    config = small_config(model, data, **settings)
    runner = build_runner(config, prepare_inputs(config), tmp_path / "run")
    take_away(runner.model, 0)
    with pytest.raises(MedtuneError, match="weights were not whole"):
        runner.train()
    assert runner.loop.iter == 0
    assert not list((tmp_path / "run").glob("*.pth")) and not list((tmp_path / "run").glob(".tmp*"))


def test_no_file_of_a_checkpoint_may_hold_a_tensor_without_an_element(tmp_path):
    """T21: fails when an optimizer's state, or any other tensor, may be saved empty."""
    tensors = {"exp_avg.a": torch.ones(2), "exp_avg.b": torch.ones(0, 4)}
    with pytest.raises(MedtuneError, match=r"optimizer\.safetensors was written without a number in 'exp_avg\.b'"):
        checkpoint.write_folder(
            tmp_path / "iter_1.pth", lambda folder: save_file(tensors, folder / "optimizer.safetensors")
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
def test_a_saved_model_has_every_tensor_in_its_shape(tmp_path, tied):
    """T21: fails when a tensor is left out, or saved in another shape, in what transformers reads back."""
    made = stage("full", tie_word_embeddings=tied)
    made.save_pretrained(tmp_path)
    wanted = {name.removeprefix("llm."): tuple(p.shape) for name, p in made.named_parameters()}
    written = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    assert written == wanted
    assert ("lm_head.weight" in written) is not tied

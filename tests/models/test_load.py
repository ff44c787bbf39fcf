"""Loading: names, dtypes, devices, quantised weights, and faults that say what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ASSETS
from helpers import cli_environment, ragged_samples, run_loop, tiny_llama, tiny_llama_folder
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from medtune.build import check
from medtune.errors import ConfigError, EnvironmentFault, ModelError
from medtune.models import attention
from medtune.models.load import (
    EMBEDDED,
    load_llm,
    load_tokenizer,
    model_folder,
    pick_device,
    pick_dtype,
)
from medtune.models.sft import SupervisedFinetune


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_llama_folder(tmp_path_factory.mktemp("models") / "tiny")


def test_the_embedded_model_is_found_by_its_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [model_folder(name) for name in EMBEDDED] == [ASSETS / name for name in EMBEDDED]


@pytest.mark.parametrize("name", ["./nowhere", "a/b/c", "~/nowhere-at-all", "/nowhere/model"])
def test_a_path_that_is_not_there_is_a_model_error_and_the_hub_is_not_asked(name, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(ModelError, match="no such folder"):
        model_folder(name)


def test_a_hub_id_that_cannot_be_had_is_one_line_with_the_reason(monkeypatch):
    import huggingface_hub

    def refuse(*_, **__):
        raise OSError("offline\nand a second line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelError) as raised:
        model_folder("org/model")
    assert str(raised.value).startswith("org/model: no such folder here, and the hub did not give it (offline). ")


def test_an_adapter_named_as_base_model_is_told_apart(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="it is an adapter: name its base model"):
        load_llm(str(tmp_path))
    assert check({"m": {"type": load_llm, "pretrained_model_name_or_path": str(tmp_path)}}) != []


def test_a_folder_without_a_tokenizer_says_which_setting_names_one(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(ModelError, match="tokenizer_name_or_path"):
        load_tokenizer(str(tmp_path / "m"))
    assert (
        "tokenizer_name_or_path"
        in check({"t": {"type": load_tokenizer, "pretrained_model_name_or_path": str(tmp_path / "m")}})[0]
    )


def test_a_tokenizer_loads_from_a_folder_without_a_model(folder, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path)
    assert load_tokenizer(str(tmp_path)).encode("a")


@pytest.mark.parametrize("damage", ["not json", "{}", '{"model_type": "no_such_architecture"}'])
def test_a_model_that_does_not_load_is_one_line_with_its_name(folder, tmp_path, damage):
    shutil.copytree(folder, tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(damage)
    with pytest.raises(ModelError) as raised:
        load_llm(str(tmp_path / "m"))
    assert str(raised.value).startswith(f"{tmp_path / 'm'}")
    assert "\n" not in str(raised.value)


def test_truncated_weights_are_a_model_error(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="the model does not load"):
        load_llm(str(tmp_path / "m"))


@pytest.mark.parametrize("bits", [None, 4])
def test_a_missing_tensor_is_a_model_error_and_not_a_random_one(folder, tmp_path, bits):
    shutil.copytree(folder, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        load_llm(str(tmp_path / "m"), bits=bits)


@pytest.mark.parametrize("name, wanted", [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_weights_have_the_dtype_asked_for(folder, name, wanted):
    model = load_llm(str(folder), torch_dtype=name)
    assert {p.dtype for p in model.parameters()} == {wanted}
    assert model.config._name_or_path == str(folder)


def test_auto_is_fp32_on_a_cpu_and_an_unknown_dtype_is_refused():
    assert pick_dtype("auto", "cpu") == torch.float32
    with pytest.raises(ModelError, match="int8"):
        pick_dtype("int8", "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_an_environment_fault():
    assert pick_device() == pick_device("cpu") == "cpu"
    with pytest.raises(EnvironmentFault, match="doctor"):
        pick_device("cuda")


def test_a_family_known_to_keep_samples_apart_gets_our_attention_and_another_keeps_its_own(folder, tmp_path):
    assert load_llm(str(folder)).config._attn_implementation == attention.NAME
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "attention_types": [[["global"], 1]]}
    GPTNeoForCausalLM(GPTNeoConfig(**sizes, vocab_size=64)).save_pretrained(tmp_path)
    other = load_llm(str(tmp_path))
    assert other.config._attn_implementation != attention.NAME
    assert not SupervisedFinetune(other, None, False, "fp32").packed_rows


@pytest.mark.slow
def test_loading_is_silent_where_nobody_watches(folder):
    code = f"from medtune.models.load import load_llm; load_llm({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], env=cli_environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---------------------------------------------------------------- quantised


def quantised_stage(folder, bits, dtype):
    torch.manual_seed(0)
    lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM")
    return SupervisedFinetune(load_llm(str(folder), torch_dtype=dtype, bits=bits), lora, False, dtype).train()


def train_quantised(made, dtype, evaluate_between):
    """Six steps; returns their losses and the adapter."""
    samples = ragged_samples([12, 9, 31, 7, 20], vocab=12288)
    optimizer = torch.optim.AdamW(list(made.trainable_parameters().values()), lr=2e-2)
    losses = []
    for step in range(6):
        torch.manual_seed(step)  # an evaluation draws no number, but let nothing hang on that
        run = run_loop(made, samples, batch_size=5, optimizer=optimizer, dtype=dtype)
        losses.append(float(run.results[0].loss_sum))
        if evaluate_between:
            made.eval()
            with torch.no_grad():
                made.llm(torch.arange(3, 12)[None])
            made.train()
    return losses, {name: p.detach().clone() for name, p in made.trainable_parameters().items()}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_4_bit_training_with_an_evaluation_between_the_steps_equals_training_without(folder, dtype):
    plain, plain_adapter = train_quantised(quantised_stage(folder, 4, dtype), dtype, False)
    broken, adapter = train_quantised(quantised_stage(folder, 4, dtype), dtype, True)
    assert broken == plain
    assert all(torch.equal(adapter[name], plain_adapter[name]) for name in plain_adapter)
    assert plain[-1] < plain[0]


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_model_trains_its_adapter_and_nothing_else(folder, bits):
    made = quantised_stage(folder, bits, "bf16")
    kinds = {type(module).__name__ for module in made.modules()}
    assert {4: "Linear4bit", 8: "Linear8bitLt"}[bits] in kinds
    frozen = {name: bits_of(p) for name, p in made.named_parameters() if not p.requires_grad}
    losses, trained = train_quantised(made, "bf16", False)
    assert losses[-1] < losses[0]
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
    now = dict(made.named_parameters())
    assert all(torch.equal(bits_of(now[name]), before) for name, before in frozen.items())


def bits_of(parameter):
    """A copy as bytes: 4-bit weights are stored as if they were bf16, and some of those are no numbers."""
    return parameter.detach().contiguous().view(torch.uint8).clone()


def test_4_bit_weights_are_nf4_double_quantised_and_near_the_originals(folder):
    quantised = load_llm(str(folder), torch_dtype="fp32", bits=4)
    settings = json.loads(json.dumps(quantised.config.quantization_config.to_dict(), default=str))
    assert (settings["bnb_4bit_quant_type"], settings["bnb_4bit_use_double_quant"]) == ("nf4", True)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        got, wanted = quantised(ids).logits, load_llm(str(folder), torch_dtype="fp32")(ids).logits
    agreement = torch.nn.functional.cosine_similarity(got, wanted, dim=-1).mean()
    assert 0.9 < agreement < 0.9999


def test_a_quantised_model_cannot_be_trained_in_full(folder):
    with pytest.raises(ConfigError, match="qlora"):
        SupervisedFinetune(load_llm(str(folder), bits=4), None, False, "fp32")


def test_a_tiny_llama_of_the_helpers_is_the_same_each_time():
    a, b = tiny_llama(), tiny_llama()
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))

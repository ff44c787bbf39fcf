"""pth_to_hf: what is published from a checkpoint, bit for bit, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from medtune.cli import main
from medtune.convert import pth_to_hf
from medtune.errors import ModelError, UsageError
from medtune.merge import merge
from medtune.models.identity import fingerprint
from medtune.shards import parse_size

ROOT = Path(__file__).resolve().parent.parent
CONFIG_TEXT = "# a config\nlr = 2e-4\n"


def seal(folder: Path) -> None:
    """Write what training writes beside the weights, the manifest last."""
    (folder / "config.py").write_text(CONFIG_TEXT)
    (folder / "state.json").write_text('{"step": 9}')
    (folder / "rank_00000.safetensors").write_bytes(b"random states")
    (folder / "manifest.json").unlink(missing_ok=True)
    files = {
        file.name: {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in folder.iterdir()
    }
    (folder / "manifest.json").write_text(json.dumps({"files": files}))


def record(method: str, base: Path) -> str:
    return json.dumps(
        {
            "medtune_version": "0.1.0",
            "stage": "sft",
            "method": method,
            "base_model": {"name_or_path": str(base), "fingerprint": fingerprint(base)},
            "prompt_template": None,
            "system": "You answer questions about medicines.",
            "torch_dtype": "bfloat16",
            "max_length": 512,
            "data": {"path": "/home/me/wards/train.xlsx", "num_samples": 482, "num_tokens": 70_000},
            "progress": {"step": 9, "epoch": 1.0, "loss": 1.25, "val_loss": None},
            "versions": {"torch": "2.13.0"},
        }
    )


@pytest.fixture
def lora_checkpoint(tmp_path, tiny_model_path) -> Path:
    folder = tmp_path / "work_dirs" / "epoch_1.pth"
    model = AutoModelForCausalLM.from_pretrained(tiny_model_path)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = (torch.randn_like(parameter) * 0.1).bfloat16()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model_path).save_pretrained(folder)
    (folder / "medtune.json").write_text(record("lora", tiny_model_path))
    save_file({"exp_avg": torch.zeros(3)}, folder / "optimizer.safetensors")
    seal(folder)
    return folder


@pytest.fixture
def full_checkpoint(tmp_path, tiny_model_path) -> Path:
    folder = tmp_path / "work_dirs" / "iter_500.pth"
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    masters = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=200, **sizes))
    state = {f"master.{name}": tensor.clone() for name, tensor in masters.state_dict().items()}
    masters.to(torch.bfloat16).save_pretrained(folder)
    del state["master.model.norm.weight"]  # one that the optimizer did not train
    save_file(state, folder / "optimizer.safetensors")
    AutoTokenizer.from_pretrained(tiny_model_path).save_pretrained(folder)
    (folder / "medtune.json").write_text(record("full", tiny_model_path))
    seal(folder)
    return folder


def test_a_lora_checkpoint_becomes_an_adapter_folder(lora_checkpoint, tmp_path, tiny_model_path):
    files = pth_to_hf(lora_checkpoint, tmp_path / "hf", config_text=None)
    names = {file.name for file in files}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "README.md", "medtune_config.py"}
    assert names >= {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "medtune.json"}
    assert not names & {"optimizer.safetensors", "state.json", "manifest.json", "rank_00000.safetensors", "config.py"}
    assert (tmp_path / "hf" / "medtune_config.py").read_text() == CONFIG_TEXT
    for name in ("adapter_config.json", "chat_template.jinja", "tokenizer.json"):
        assert (tmp_path / "hf" / name).read_bytes() == (lora_checkpoint / name).read_bytes()
    ours, theirs = (load_file(f / "adapter_model.safetensors") for f in (tmp_path / "hf", lora_checkpoint))
    assert ours.keys() == theirs.keys()
    assert all(tensor.dtype == torch.bfloat16 and torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model_path), tmp_path / "hf")


def test_the_card_says_what_it_is_and_names_no_folder(lora_checkpoint, tmp_path):
    pth_to_hf(lora_checkpoint, tmp_path / "hf", config_text="# mine\n")
    card = (tmp_path / "hf" / "README.md").read_text()
    assert card.startswith('---\nbase_model: "med-llama-tiny"\nlibrary_name: peft\n')
    assert "You answer questions about medicines." in card and "`train.xlsx`" in card and "| 70,000 |" in card
    assert "Not for diagnosis" in card and "/home/me" not in card and "val" not in card.split("| tokens")[1][:40]
    assert (tmp_path / "hf" / "medtune_config.py").read_text() == "# mine\n"


def test_fp32_casts_an_adapter_up_exactly(lora_checkpoint, tmp_path):
    pth_to_hf(lora_checkpoint, tmp_path / "hf", fp32=True)
    ours, theirs = (load_file(f / "adapter_model.safetensors") for f in (tmp_path / "hf", lora_checkpoint))
    assert all(tensor.dtype == torch.float32 and torch.equal(tensor, theirs[n].float()) for n, tensor in ours.items())
    assert json.loads((tmp_path / "hf" / "medtune.json").read_text())["torch_dtype"] == "float32"


def test_a_full_checkpoint_becomes_a_plain_model_in_shards(full_checkpoint, tmp_path):
    files = pth_to_hf(full_checkpoint, tmp_path / "hf", max_shard_size="20KB")
    assert len([file for file in files if file.suffix == ".safetensors"]) > 1
    ours, theirs = (AutoModelForCausalLM.from_pretrained(f) for f in (tmp_path / "hf", full_checkpoint))
    assert ours.dtype == torch.bfloat16
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())
    assert "library_name: transformers" in (tmp_path / "hf" / "README.md").read_text()
    AutoTokenizer.from_pretrained(tmp_path / "hf")


def test_fp32_takes_the_optimizers_masters_of_a_full_checkpoint(full_checkpoint, tmp_path):
    pth_to_hf(full_checkpoint, tmp_path / "hf", fp32=True)
    masters = load_file(full_checkpoint / "optimizer.safetensors")
    stored = load_file(full_checkpoint / "model.safetensors")
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert ours.dtype == torch.float32
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, masters.get(f"master.{name}", stored[name].float())), name


def test_checkpoint_and_converted_adapter_merge_alike(lora_checkpoint, tmp_path, tiny_model_path):
    pth_to_hf(lora_checkpoint, tmp_path / "hf")
    merge(tiny_model_path, tmp_path / "hf", tmp_path / "a", verify=True)
    merge(tiny_model_path, lora_checkpoint, tmp_path / "b")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "medtune.json", "config.py"]
)
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_file_that_is_not_what_the_manifest_says_is_named(name, damage, lora_checkpoint, tmp_path):
    if damage == "missing":
        (lora_checkpoint / name).unlink()
    else:
        content = bytearray((lora_checkpoint / name).read_bytes())
        content[-2] ^= 1
        (lora_checkpoint / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        pth_to_hf(lora_checkpoint, tmp_path / "hf")
    assert not (tmp_path / "hf").exists() and not (tmp_path / ".hf.partial").exists()


def test_a_damaged_master_is_named_only_where_it_is_read(full_checkpoint, tmp_path):
    (full_checkpoint / "optimizer.safetensors").write_bytes(b"damaged")
    pth_to_hf(full_checkpoint, tmp_path / "bf16")
    with pytest.raises(ModelError, match=r"optimizer.safetensors"):
        pth_to_hf(full_checkpoint, tmp_path / "hf", fp32=True)


def test_what_is_no_checkpoint_is_refused_with_what_is_wanted(lora_checkpoint, tmp_path):
    (tmp_path / "old.pth").write_bytes(b"an mmengine file")
    (lora_checkpoint / "manifest.json").unlink()
    for place, said in (
        (tmp_path / "old.pth", "this is a file"),
        (tmp_path / "none", "no such"),
        (lora_checkpoint, "no"),
    ):
        with pytest.raises(ModelError, match=f"{said}.*wanted a checkpoint folder"):
            pth_to_hf(place, tmp_path / "hf")


def test_a_folder_in_use_is_left_alone(lora_checkpoint, tmp_path):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="not empty"):
        pth_to_hf(lora_checkpoint, tmp_path / "hf")
    assert [file.name for file in (tmp_path / "hf").iterdir()] == ["thesis.txt"]


def test_a_fault_half_way_leaves_nothing(lora_checkpoint, tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full_disk)
    with pytest.raises(OSError, match="No space"):
        pth_to_hf(lora_checkpoint, tmp_path / "hf")
    assert not (tmp_path / "hf").exists() and not (tmp_path / ".hf.partial").exists()


def test_a_kill_half_way_leaves_nothing_that_loads_and_the_next_run_succeeds(lora_checkpoint, tmp_path):
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom medtune import convert\n"
        "convert.write_file = lambda *_: os.kill(os.getpid(), 9)\n"
        "convert.pth_to_hf(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    killed = subprocess.run([sys.executable, "-c", script, lora_checkpoint, tmp_path / "hf"], check=False, cwd=ROOT)
    assert killed.returncode == -9
    assert not (tmp_path / "hf").exists() and (tmp_path / ".hf.partial" / "adapter_config.json").exists()
    pth_to_hf(lora_checkpoint, tmp_path / "hf")
    assert (tmp_path / "hf" / "adapter_model.safetensors").exists() and not (tmp_path / ".hf.partial").exists()


def test_the_command_line_converts(lora_checkpoint, tmp_path, capsys):
    words = ["convert", "pth_to_hf", "med_llama_tiny_lora_medqa_e3", str(lora_checkpoint), str(tmp_path / "hf")]
    assert main(words) == 0
    told = capsys.readouterr()
    assert "adapter_model.safetensors" in told.out and not told.err
    again = str(tmp_path / "again")
    assert main([*words[:2], "med_llama_tiny_full_medqa_e3", words[3], again]) == 0
    assert "says method='full', the checkpoint was trained by 'lora'" in capsys.readouterr().err
    assert main([*words[:2], "my_config", words[3], str(tmp_path / "third")]) == 2
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize(("text", "size"), [("2GB", 2 * 10**9), ("500 MB", 5 * 10**8), ("1.5gib", 3 * 2**29)])
def test_sizes_are_read_as_transformers_reads_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "2", "0GB", "-1GB", "2TB GB", "GB"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="max-shard-size"):
        parse_size(text)

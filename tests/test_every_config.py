"""Every built-in config on disk: it loads, has no fault, expands to the same values, and trains a step."""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path
from typing import Any

import pytest
from config_helpers import same
from conftest import ROOT

from medtune.build import check
from medtune.config import builtin_configs, compose, load
from medtune.config_text import assignments

FILES = [f for f in sorted((ROOT / "configs").rglob("*.py")) if f.parent.name != "_base_" and f.name != "__init__.py"]
NAMES = [f.stem for f in FILES]
METHODS = ("full", "lora", "qlora")

# First words of a config's name -> transformers' config class and settings of its architecture.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "internlm3": ("InternLM3Config", {"head_dim": 16}),
    "internlm": ("LlamaConfig", {"attention_bias": True}),  # InternLM 1 is Llama with biases in its attention
    "llama3": ("LlamaConfig", {}),
    "med_llama": ("LlamaConfig", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
}

QUESTION, ANSWER = "What is a fever?", "A body temperature of 38 degrees or more."
ROWS: dict[str | None, dict[str, str]] = {
    None: {"input": QUESTION, "output": ANSWER},
    "alpaca": {"instruction": "Answer truthfully.", "input": QUESTION, "output": ANSWER},
    "oasst1": {"text": f"### Human: {QUESTION}### Assistant: {ANSWER}"},
    "msagent_react": {
        "conversations": str([{"from": "user", "value": QUESTION}, {"from": "assistant", "value": ANSWER}])
    },
}


def test_the_walk_sees_all_fifteen_configs_and_no_name_twice():
    assert len(NAMES) == 15
    assert sorted(NAMES) == list(builtin_configs())


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_config_is_short_and_its_name_tells_model_method_data_and_epochs(file):
    text = file.read_text(encoding="utf-8")
    assert len([line for line in text.split("\n") if line.strip()]) <= 30
    values = load(file.stem).values
    assert f"_{values['method']}_" in file.stem
    assert file.stem.removesuffix("_gpu8").endswith(f"_e{values['max_epochs']}")
    assert file.parent.name in file.stem


@pytest.mark.parametrize("name", NAMES)
def test_a_config_has_no_fault_and_is_checked_without_a_network(name, monkeypatch):
    def refuse(*_: Any) -> None:
        raise AssertionError("check opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    faults = check(load(name).values)
    local_data = [fault for fault in faults if fault.endswith("no such file or folder.")]  # what a user puts there
    assert faults == local_data and len(local_data) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_expanded_copy_holds_the_same_values_and_every_setting(name, tmp_path):
    copy = tmp_path / f"{name}_copy.py"
    copy.write_text(compose(builtin_configs()[name]), encoding="utf-8")
    assert same(load(str(copy)).values, load(name).values)
    assert "_base_" not in assignments(copy.read_text(encoding="utf-8"))


def test_modern_models_have_all_three_methods_and_the_same_settings_but_those_of_the_method():
    for model in ("llama3_1_8b_instruct", "qwen3_8b", "internlm3_8b_instruct", "med_llama_tiny"):
        configs = [load(n).values for n in NAMES if n.startswith(model)]
        assert sorted(c["method"] for c in configs) == sorted(METHODS)
        for c in configs:
            assert (c["model"]["lora"] is None) == (c["method"] == "full")
            assert c["model"]["llm"]["bits"] == (4 if c["method"] == "qlora" else None)
        shared = [{k: v for k, v in c.items() if k in ("data_path", "max_length", "SYSTEM")} for c in configs]
        assert shared[0] == shared[1] == shared[2]


@pytest.fixture(scope="module")
def random_model(tmp_path_factory, tiny_tokenizer):
    """Folder of a random two-layer model with the tiny tokenizer, for a config's name."""
    folders: dict[str, Path] = {}

    def make(name: str) -> Path:
        import torch
        import transformers

        kind = next(kind for kind in ARCHITECTURES if name.startswith(kind))
        if kind not in folders:
            class_name, settings = ARCHITECTURES[kind]
            sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
            config = getattr(transformers, class_name)(
                **sizes, **settings, num_key_value_heads=2, vocab_size=len(tiny_tokenizer), max_position_embeddings=512
            )
            torch.manual_seed(0)
            folders[kind] = tmp_path_factory.mktemp(kind)
            transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folders[kind])
            tiny_tokenizer.save_pretrained(folders[kind])
        return folders[kind]

    return make


def four_rows(values: dict[str, Any], folder: Path) -> Path:
    """A data file of the shape that a config reads."""
    if values["data_sheet"]:
        from openpyxl import Workbook

        book = Workbook()
        sheet = book.create_sheet(values["data_sheet"])
        sheet.append(["Question", "Focus", "Type", "Answer"])
        for _ in range(4):
            sheet.append([QUESTION, "", "", ANSWER])
        book.save(folder / "rows.xlsx")
        return folder / "rows.xlsx"
    line = json.dumps(ROWS[values["dataset_map_fn"]])
    (folder / "rows.jsonl").write_text(f"{line}\n" * 4, encoding="utf-8")
    return folder / "rows.jsonl"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_config_trains_a_step_on_a_random_model_of_its_architecture(name, tmp_path, random_model, tiny_tokenizer):
    from safetensors.torch import load_file

    from medtune.engine.train import train

    values = load(name).values
    changes = {
        "pretrained_model_name_or_path": random_model(name),
        "data_path": four_rows(values, tmp_path),
        "dataset_map_fn": values["dataset_map_fn"],
        "max_steps": 1,
        "batch_size": 1,
        "accumulative_counts": 2,
        "max_length": 192,
        "evaluation_max_new_tokens": 2,
    }
    config = load(name, [(key, str(value)) for key, value in changes.items()])
    runner = train(config, tmp_path / "work")
    assert runner.loop.iter == 1
    assert runner.inputs.train_dataset.report.num_rows == 4
    assert runner.metrics["loss"] == pytest.approx(math.log(len(tiny_tokenizer)), abs=0.5)  # it knows nothing yet
    (checkpoint,) = (tmp_path / "work").glob("*.pth")
    kinds = {type(module).__name__ for module in runner.model.modules()}
    assert ("Linear4bit" in kinds) == (values["method"] == "qlora")
    if values["method"] == "full":
        assert (checkpoint / "model.safetensors").is_file()
    else:
        adapter = load_file(checkpoint / "adapter_model.safetensors")
        assert all(weight.any() for weight in adapter.values())  # B starts at zero: one step has moved all of it

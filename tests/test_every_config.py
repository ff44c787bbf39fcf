"""Every built-in config on disk: it loads, has no fault, is written out and runs again with the same values.

Configs that a name alone means, and the models and data sets they are made of: test_config_names.py.
"""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest
from config_helpers import same
from conftest import ROOT

from medtune.build import check
from medtune.config import Config, builtin_configs, compose, data_configs, load, with_data_settings
from medtune.config_names import config_text, known_parts, split_name
from medtune.config_text import assignments
from medtune.errors import ConfigError
from medtune.families import MODELS

CONFIGS = ROOT / "configs"
FILES = sorted(file for file in CONFIGS.glob("*/*.py") if file.parent.name != "_base_")
NAMES = [file.stem for file in FILES]
METHODS = ("full", "lora", "qlora")
# Configs that set more than their names say.
SPECIAL = {
    *(name for name in NAMES if name.startswith("med_llama_tiny")),  # the demos
    "internlm_7b_qlora_msagent_react_e3_gpu8",
    "internlm_7b_qlora_moss_sft_all_e2_gpu8",
}
# Faults of a config whose data a user must put there first.
LOCAL_DATA = re.compile(r".*: no such file or folder\..*|.*no copy of it here, and no hub has it\. .*")


@pytest.fixture(scope="module")
def loaded():
    """A config's values and text, loaded once for all tests."""
    kept: dict[str, Config] = {}

    def get(name: str) -> Config:
        if name not in kept:
            kept[name] = load(name)
        return kept[name]

    return get


@pytest.fixture(scope="module")
def data_texts():
    """Flat text of every data set's base."""
    return {name: compose(file) for name, file in data_configs().items()}


def test_there_are_many_names_from_few_lines_and_no_name_twice():
    assert len(NAMES) == len(set(NAMES)) >= 120
    assert sorted(NAMES) == list(builtin_configs())
    texts = {file: file.read_text(encoding="utf-8").splitlines() for file in CONFIGS.rglob("*.py")}
    assert max(len(texts[file]) for file in FILES) <= 30
    assert sum(map(len, texts.values())) < 3500


@pytest.mark.parametrize("family", sorted({file.parent.name for file in FILES}))
def test_configs_hold_what_their_names_say(family, loaded, data_texts):
    """Method, epochs and data set; the text, but for a few, is the one that the name alone would give."""
    for file in (file for file in FILES if file.parent.name == family):
        parts, values = split_name(file.stem), loaded(file.stem).values
        assert parts is not None, file.stem
        assert (values["method"], values["max_epochs"]) == (parts.method, parts.epochs), file.stem
        model = MODELS[parts.model]
        assert (values["pretrained_model_name_or_path"], family) == (model.hub_id, model.family), file.stem
        if file.stem not in SPECIAL:
            assert file.read_text(encoding="utf-8") == config_text(parts, data_texts[parts.data]), file.stem


@pytest.mark.parametrize("name", NAMES)
def test_a_config_has_no_fault_and_is_checked_without_a_network(name, loaded, monkeypatch, tmp_path):
    def refuse(*_: Any) -> None:
        raise AssertionError("check opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)  # no data here
    faults = check(loaded(name).values)
    assert len(faults) <= 1
    assert all(LOCAL_DATA.fullmatch(fault) for fault in faults)


@pytest.mark.parametrize("name", NAMES)
def test_the_text_that_ran_is_whole_and_runs_again_with_the_same_values(name, loaded, tmp_path):
    config = loaded(name)
    assert "_base_" not in assignments(config.text)
    saved = tmp_path / "saved.py"
    saved.write_text(config.text, encoding="utf-8")
    assert same(load(str(saved)).values, config.values)


def test_a_copy_shows_the_settings_of_the_data_and_means_the_same(loaded, tmp_path):
    for name in NAMES[::12]:
        copy = tmp_path / f"{name}_copy.py"
        copy.write_text(with_data_settings(builtin_configs()[name]), encoding="utf-8")
        assert {"data_path", "pretrained_model_name_or_path", "method"} <= set(assignments(copy.read_text())), name
        assert same(load(str(copy)).values, loaded(name).values), name


def test_the_three_methods_of_a_model_differ_in_nothing_else(loaded):
    for model, data in (("llama3_1_8b_instruct", "flashcards_e3"), ("qwen3_8b", "medical_e1"),
                        ("internlm3_8b_instruct", "medical_e1"), ("med_llama_tiny", "medqa_e3")):  # fmt: skip
        configs = {method: loaded(f"{model}_{method}_{data}").values for method in METHODS}
        for method, values in configs.items():
            assert (values["model"]["lora"] is None) == (method == "full")
            assert values["model"]["llm"]["bits"] == (4 if method == "qlora" else None)
        plain = [
            {k: v for k, v in values.items() if isinstance(v, (str, int, list)) and k not in ("method", "lora_alpha")}
            for values in configs.values()
        ]
        assert plain[0] == plain[1] == plain[2]
        assert configs["full"]["lr"] * 10 == configs["lora"]["lr"] or model == "med_llama_tiny"


def test_every_family_that_xtuner_had_a_medical_config_for_has_it_here():
    """All of 0.1.9 but the two of Baichuan 13B, which are refused."""
    models = (
        "baichuan_7b chatglm2_6b chatglm3_6b_base chatglm3_6b internlm_7b internlm_chat_7b llama2_7b_chat llama2_7b"
    )
    for model in [*models.split(), "llama_7b", "qwen_7b_chat", "qwen_7b"]:
        assert f"{model}_qlora_medical_e1" in NAMES
    for model in ("baichuan_13b_base", "baichuan_13b_chat"):
        with pytest.raises(ConfigError, match="ALiBi"):
            known_parts(f"{model}_qlora_medical_e1", ["medical"])

"""What a setting on the command line becomes in the text of a config."""

from __future__ import annotations

from typing import Any

import pytest
from config_helpers import FLAT, TINY, fault, settings, writer
from hypothesis import given
from hypothesis import strategies as st

from medtune.config import load, split_words
from medtune.config_text import assignments, override, parse_value


@pytest.fixture
def write(tmp_path):
    """Write a config and return its path as text."""
    return writer(tmp_path)


@given(st.text())
def test_any_text_arrives_untouched_in_a_setting_that_holds_text(text):
    if text == "None":
        return
    namespace: dict[str, Any] = {}
    exec(override(FLAT, [("note", text)]), namespace)
    assert namespace["note"] == namespace["model"]["note"] == text
    assert namespace["model"]["prompts"] == ["a # b", "c"]


@pytest.mark.parametrize(
    "text", ["a, b", "k=v=w", "'q'", '"q" # c', "{x}", "[1]", "dict(a=1)", "1e3", "True", "你好，世界", ""]
)
def test_a_text_arrives_untouched_through_the_command_line_words(write, text):
    assert load(write(FLAT), settings("lr=1", f"note={text}")).values["model"]["note"] == text


@pytest.mark.parametrize(
    ("current", "text", "value"),
    [
        (1, "2", 2),
        (3, "0.5", 0.5),
        (1e-4, "2e-5", 2e-5),
        (1, "-7", -7),
        (True, "false", False),
        (1, "None", None),
        ("x", "None", None),
        (None, "None", None),
        (None, "12", 12),
        (None, "true", True),
        (None, "a,b", "a,b"),
        (None, "'12'", "12"),
        (None, "1_000", "1_000"),
        (None, "'a' and 'b'", "'a' and 'b'"),
        (None, "{'input': 'A'}", {"input": "A"}),
        (None, "dict(input='A', output='D')", {"input": "A", "output": "D"}),
        (None, "[dict(a=(1, 2)), {'b': dict()}]", [{"a": (1, 2)}, {"b": {}}]),
        ((0.9, 0.999), "(0.9, 0.95)", (0.9, 0.95)),
        ((0.9, 0.999), "0.9,0.95", [0.9, 0.95]),
        ([], "What is it, and why?", ["What is it, and why?"]),
        ([], "'a','b, c'", ("a", "b, c")),
        ([], "'a', 2 ", ["a", 2]),
        ([], "['a', '你好']", ["a", "你好"]),
        ([], "None", None),
    ],
)
def test_values_are_read_as_the_setting_wants_them(current, text, value):
    read = parse_value("name", text, current)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("current", "text", "wanted"),
    [
        (1e-4, "fast", "name=fast: wanted a number, such as 0.0001"),
        (1, "True", "wanted a number"),
        (1, "", "wanted a number"),
        (1, "1e999", "wanted a number"),
        (1, "[1]", "wanted a number"),
        (True, "1", "wanted True or False"),
        (None, "dict(input=A)", "no Python value in these brackets"),
        (None, "dict(**{'a': 1})", "no Python value in these brackets"),
        (None, "{'a': open('x')}", "no Python value in these brackets"),
        (None, "[a, b]", "no Python value in these brackets"),
        ([], "[a, b]", "no Python value in these brackets"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_in_one_line(current, text, wanted):
    said = fault(parse_value, "name", text, current)
    assert wanted in said
    assert "\n" not in said


def test_settings_stand_anywhere_on_the_line_and_the_last_of_several_wins():
    plain, found = split_words(["lr=1", "./a.py", "x.y.0=a=b, c", "lr=2", "./k=v.py"])
    assert plain == ["./a.py", "./k=v.py"]
    assert found == [("lr", "1"), ("x.y.0", "a=b, c"), ("lr", "2")]
    assert assignments(override(FLAT, found))["lr"].value.value == 2  # type: ignore[attr-defined]


def test_all_faults_of_the_command_line_are_told_at_once(write):
    said = fault(load, write(FLAT), settings("lrr=1", "lr=x", "notes=a"))
    assert said.count("\n") == 3
    assert "no setting 'lrr'. Did you mean 'lr'" in said
    assert "lr=x: wanted a number" in said
    assert "no setting 'notes'. Did you mean 'note'" in said


def test_an_override_keeps_the_comment_and_every_other_line():
    text = override(FLAT, settings("lr=1", "prompts=['d']", "note=#"))
    changed = [line for line in text.split("\n") if line not in FLAT.split("\n")]
    assert changed == ["lr = 1  # peak", "prompts = ['d']  # asked", "note = '#'"]
    long = override(FLAT, [("prompts", str(["x" * 120]))])
    assert f"# asked\nprompts = ['{'x' * 120}']\n" in long


def test_another_data_path_forgets_how_the_old_one_was_read_unless_that_is_given_too(write):
    name = "internlm_chat_7b_qlora_oasst1_e3"
    assert load(name).values["train_dataset"]["dataset_map_fn"] == "oasst1"
    assert load(name, settings("data_path=x.json")).values["train_dataset"]["dataset_map_fn"] is None
    both = load(name, settings("data_path=x.json", "dataset_map_fn=alpaca")).values
    assert both["train_dataset"]["dataset_map_fn"] == "alpaca"
    mine = write('_base_ = "sft"\n\ndef my_map(row):\n    return row\n\ndataset_map_fn = my_map\n')
    assert callable(load(mine, settings("data_path=x.json")).values["train_dataset"]["dataset_map_fn"])


def test_a_dotted_name_reaches_inside_and_may_give_an_argument_that_the_callable_takes(write):
    model = load(write(FLAT), settings("model.note=a, b", "model.sub.items.0=dict(z=1)", "lr=3")).values["model"]
    assert (model["note"], model["sub"]["items"][0], model["rate"]) == ("a, b", {"z": 1}, 6)
    values = load(TINY, settings("model.lora.use_rslora=True", "train_dataloader.dataset.max_length=64")).values
    assert values["model"]["lora"]["use_rslora"] is True
    assert values["train_dataset"]["max_length"] == 64


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("model.lora.rr=8", "model.lora.rr: model.lora has no 'rr'. Did you mean 'r'"),
        ("model.lorra.r=8", "model.lorra.r: model has no 'lorra'. Did you mean 'lora'"),
        ("modell.lora=None", "modell.lora: the config has no 'modell'. Did you mean 'model'"),
        ("custom_hooks.9.system=x", "custom_hooks is a list of 4, which has no '9'"),
        ("model.lora.r.x=8", "model.lora.r is a int, which has no 'x'"),
        ("model.lora.r=big", "model.lora.r=big: wanted a number"),
    ],
)
def test_a_dotted_name_that_does_not_exist_is_refused_with_the_near_one(word, wanted):
    assert wanted in fault(load, TINY, settings(word))

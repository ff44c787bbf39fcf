"""Configs as text: a base, a child and the command line become one text, which runs, is saved, and runs again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from config_helpers import FLAT, TINY, fault, same, settings, writer

from medtune.config import builtin_configs, compose, find, load, run
from medtune.config_text import assignments, insert_before_imports
from medtune.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    """Write a config and return its path as text."""
    return writer(tmp_path)


# ---------------------------------------------------------------- a child in its base


def test_a_child_replaces_settings_and_what_is_derived_follows(write):
    write(FLAT, "flat.py")
    model = load(write('_base_ = "flat.py"\nlr = 5.0\nnote = "y"\n')).values["model"]
    assert (model["lr"], model["rate"], model["note"], model["prompts"]) == (5.0, 10.0, "y", ["a # b", "c"])


def test_a_grandchild_replaces_what_its_base_replaced(write):
    write(FLAT, "flat.py")
    write('_base_ = "flat.py"\nlr = 5.0\nnote = "y"\n', "child.py")
    model = load(write('_base_ = "./child.py"\nlr = 7.0\n')).values["model"]
    assert (model["lr"], model["note"]) == (7.0, "y")


def test_a_base_is_sought_beside_the_child_and_not_in_the_current_folder(write, tmp_path, monkeypatch):
    write(FLAT.replace("1e-4", "3.0"), "deep/flat.py")
    write(FLAT, "flat.py")
    child = write('_base_ = "flat.py"\nnote = "y"\n', "deep/mine.py")
    monkeypatch.chdir(tmp_path)
    assert load(child).values["model"]["lr"] == 3.0


def test_a_built_in_config_may_be_a_base(write):
    values = load(write(f'_base_ = "{TINY}"\nmax_length = 99\n')).values
    assert values["train_dataset"]["max_length"] == 99
    assert values["pretrained_model_name_or_path"] == "med-llama-tiny"


def test_a_child_brings_imports_decorated_functions_and_private_names(write):
    write(FLAT, "flat.py")
    child = """\
\"\"\"Mine, with a \\\\ and 'quotes'.\"\"\"
from __future__ import annotations

import functools

_base_ = "flat.py"
_two = 2


@functools.cache
def double(x):
    return x * _two


lr = double(3.0)
"""
    config = load(write(child))
    assert config.values["model"]["lr"] == 6.0
    assert config.text.startswith('"""Mine, with a \\\\ and \'quotes\'."""\nfrom __future__')


def test_a_child_may_replace_a_whole_part_with_its_own_callables(write):
    child = """\
_base_ = "sft"

def rows():
    return [dict(input="a", output="b")]

train_dataset = dict(
    type=build_dataset, dataset=dict(type=rows), tokenizer=tokenizer, max_length=max_length, seed=seed,
)
"""
    values = load(write(child), settings("max_length=77")).values
    assert values["train_dataset"]["max_length"] == values["val_dataset"]["max_length"] == 77
    assert values["train_dataset"]["dataset"]["type"]() == [{"input": "a", "output": "b"}]


def test_a_setting_that_such_a_part_no_longer_reads_cannot_be_set(write):
    child = '_base_ = "sft"\ntrain_dataset = dict(type=dict, dataset={}, x=max_length)\ndata_sheet = "S"\n'
    said = fault(load, write(child))
    assert "mine.py:3: sets 'data_sheet', which nothing uses." in said
    assert "'data_sheet'" in fault(load, write(child.replace('data_sheet = "S"\n', "")), settings("data_sheet=S"))


def test_several_assignments_to_one_name_in_a_child_all_count(write):
    write(FLAT, "flat.py")
    assert load(write('_base_ = "flat.py"\nlr = 2.0\nlr = lr * 2\n')).values["model"]["lr"] == 4.0


def test_a_child_may_bring_settings_that_it_reads_itself_and_change_parts_of_its_base(write):
    write(FLAT, "flat.py")
    write('_base_ = "flat.py"\nscale = 3\nlr = scale * 2\nmodel["sub"]["extra"] = scale\n', "middle.py")
    child = write('_base_ = "middle.py"\nscale = 4\n')
    values = load(child).values
    assert (values["model"]["lr"], values["model"]["sub"]["extra"]) == (8, 4)
    values = load(child, [("scale", "5")]).values
    assert (values["model"]["lr"], values["model"]["rate"], values["model"]["sub"]["extra"]) == (10, 20, 5)
    said = fault(load, write('_base_ = "flat.py"\nmodel["lr"] = other\n'))
    assert "NameError" in said
    said = fault(load, write('_base_ = "flat.py"\nmodl["lr"] = 1\n'))
    assert "mine.py:2: a config with a _base_ holds settings" in said


def test_every_misspelt_setting_of_a_child_is_refused_with_its_line_and_the_near_name(write):
    said = fault(load, write('_base_ = "sft"\n\nlearning = 1\nmax_lenght = 3\n'))
    assert "mine.py:3: the base has no setting 'learning'" in said
    assert "mine.py:4: the base has no setting 'max_lenght'. Did you mean 'max_length'" in said


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('_base_ = "mine.py"\n', "mine.py: its _base_ leads back to itself"),
        ('_base_ = "sftt"\n', "no config named 'sftt'. Did you mean 'sft'"),
        ('_base_ = "./none.py"\n', "no config file './none.py'."),
        ('_base_ = ["sft"]\n', "mine.py:1: _base_ wants one config name"),
        ('_base_ = "sft"\nlr = (1,\n', "mine.py:2: '(' was never closed: lr = (1,"),
        ('_base_ = "sft"\nlr, seed = 1, 2\n', "mine.py:2: wanted one statement a line"),
        ('_base_ = "sft"\nlr = seed = 1\n', "mine.py:2: wanted one statement a line"),
        ('_base_ = "sft"\nlr = 1; seed = 2\n', "mine.py:2: wanted one statement a line"),
        ('_base_ = "sft"\nfor x in "ab":\n    print(x)\n', "mine.py:2: a config with a _base_ holds settings, imports"),
        ('_base_ = "sft"\nmodel.x = 1\n', "mine.py:2: a config with a _base_ holds settings, imports"),
        ('_base_ = "sft"\nlr = 1 / 0\n', "mine.py:2: `lr = 1 / 0"),
        ('_base_ = "sft"\ndataset_map_fn = alpaca_map_fn\n', "mine.py:2: `dataset_map_fn = alpaca_map_fn  # a name"),
        ('_base_ = "sft"\nprompt_template = qwen\n', "name 'qwen' is not defined. Import it, or put it in quotes"),
        ('_base_ = "sft"\nimport nowhere_at_all\n', "mine.py:2: `import nowhere_at_all`: ModuleNotFoundError"),
        ("lr = 1\0\n", "mine.py"),
    ],
)
def test_a_faulty_config_is_told_in_one_line_with_its_place(write, text, wanted):
    said = fault(load, write(text))
    assert wanted in said
    assert "\n" not in said


def test_a_circle_of_two_files_is_found(write):
    write('_base_ = "mine.py"\n', "other.py")
    assert "leads back to itself" in fault(load, write('_base_ = "other.py"\n'))


def test_a_fault_in_the_base_names_the_base(write):
    base = write(FLAT.replace("lr * 2", "lr.x"), "flat.py")
    assert f"{base}:10: `rate = lr.x`: AttributeError" in fault(load, write('_base_ = "flat.py"\nlr = 2.0\n'))


# ---------------------------------------------------------------- files


def test_windows_line_ends_a_byte_order_mark_and_odd_line_separators_do_no_harm(write):
    text = FLAT.replace('"a # b"', '"a\u2028b\x0c"').replace("\n", "\r\n")
    model = load(write(text, encoding="utf-8-sig", newline=""), settings("note=z")).values["model"]
    assert (model["note"], model["lr"], model["prompts"][0]) == ("z", 1e-4, "a\u2028b\x0c")


def test_a_file_that_is_not_utf_8_is_refused_with_the_place(write):
    assert "not UTF-8 at byte 5" in fault(load, write("lr ='é'\n", encoding="latin-1"))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("med_llama_tiny_lora_medqa", f"Did you mean '{TINY}'"),
        ("./minee.py", "no config file './minee.py'. Did you mean 'mine.py'"),
        ("mine", "Did you mean 'mine.py'"),
        ("notes.txt", "a config is a Python file"),
    ],
)
def test_a_config_that_is_not_there_is_answered_with_the_nearest(write, monkeypatch, tmp_path, name, wanted):
    write(FLAT)
    write("x", "notes.txt")
    monkeypatch.chdir(tmp_path)
    assert wanted in fault(find, name)


# ---------------------------------------------------------------- settings that nothing reads


def test_a_misspelt_extra_name_in_a_flat_file_is_refused_with_the_near_one(write):
    said = fault(load, write(FLAT.replace("note = ", "notte = 1\nnote = ")))
    assert "mine.py:9: sets 'notte', which nothing uses. Did you mean 'note'" in said


def test_a_renamed_setting_is_told_as_that_and_not_as_a_name_error(write):
    assert "mine.py:9: sets 'noet', which nothing uses. Did you mean 'note'" in fault(
        load, write(FLAT.replace("note = ", "noet = "))
    )


@pytest.mark.parametrize("line", ["lr = 5.0", "lr *= 2"])
def test_a_setting_below_its_last_use_is_refused(write, line):
    said = fault(load, write(FLAT + line + "\n"))
    assert f"mine.py:{FLAT.count(chr(10)) + 1}: 'lr' is set here below its last use" in said


def test_names_read_in_functions_and_private_names_are_used(write):
    text = FLAT + "def ask():\n    return later\n\nlater = 1\n_note = 2\nmodel['ask'] = ask\n"
    assert load(write(text)).values["model"]["ask"]() == 1


# ---------------------------------------------------------------- the text that ran runs again


def test_the_resolved_text_runs_again_to_the_same_values_from_anywhere(write, tmp_path):
    write("from helper_two import WORD\n\ndef prefix(row):\n    return WORD + row\n", "at/helper_one.py")
    write("WORD = 'w'\n", "at/helper_two.py")
    child = """\
\"\"\"Mine.\"\"\"
from __future__ import annotations

from helper_one import prefix

_base_ = "sft"

def mine(row):
    return prefix(row)

dataset_map_fn = mine
"""
    first = load(write(child, "at/mine.py"), settings("SYSTEM=你好, a=b", "model.lora.r=8", "max_length=33"))
    saved = write(first.text, "elsewhere/config.py")
    _forget(tmp_path / "at", "helper_one", "helper_two")
    again = load(saved)
    assert same(first.values, again.values)
    assert again.values["train_dataset"]["dataset_map_fn"]("x") == "wx"
    assert again.values["custom_hooks"][3]["system"] == "你好, a=b"
    assert again.values["model"]["lora"]["r"] == 8
    assert again.text == first.text
    _forget(tmp_path / "at", "helper_one", "helper_two")


def _forget(folder: Path, *modules: str) -> None:
    """Leave no trace of a folder's modules in this process."""
    sys.path[:] = [entry for entry in sys.path if entry != str(folder)]
    for name in modules:
        sys.modules.pop(name, None)


def test_a_config_has_no_future_features_but_its_own(write):
    text = FLAT + "def ask(row: int):\n    return row\n\nmodel['kind'] = ask.__annotations__['row']\n"
    assert load(write(text)).values["model"]["kind"] is int


def test_lines_put_above_the_imports_stand_below_docstring_and_future_imports():
    text = insert_before_imports('"""D."""\nfrom __future__ import annotations\nimport json\n', ["x = 1"])
    assert text == '"""D."""\nfrom __future__ import annotations\nx = 1\n\nimport json\n'


def test_the_expanded_text_has_five_parts_and_every_setting_of_its_base():
    text = compose(builtin_configs()[TINY])
    assert [f"PART {i} " in text for i in range(1, 6)] == [True] * 5
    assert set(assignments(compose(find("sft")))) == set(assignments(text))


# ---------------------------------------------------------------- what reaches the objects


@pytest.fixture(scope="module")
def build_inputs():
    """Build the data side of the demo config with some settings changed."""
    from medtune.engine.train import prepare_inputs

    return lambda *words: prepare_inputs(load(TINY, settings(*words)))


def test_data_settings_reach_the_built_objects(build_inputs, write):
    data = write('{"input": "Why?", "output": "So."}\n' * 7, "mine.jsonl")
    words = ("max_length=48", "batch_size=3", "accumulative_counts=2", "pack_to_max_length=False", f"data_path={data}")
    inputs = build_inputs(*words)
    assert len(inputs.train_dataset) == 7
    step = next(iter(inputs.train_data))
    assert len(step.micro_batches) == 2
    assert [len(m.cu_seqlens) - 1 for m in step.micro_batches] == [3, 3]
    packed = build_inputs("max_length=48", f"data_path={data}").train_dataset
    assert max(sum(packed.samples.lengths[i] for i in pack) for pack in packed.packs) <= 48


@pytest.mark.slow
def test_training_settings_reach_the_built_runner(tmp_path, tiny_model_path):
    from medtune.engine.train import build_runner, prepare_inputs

    model = shutil.copytree(tiny_model_path, tmp_path / "model, a=b")
    words = ("lr=0.125", "max_epochs=2", "save_steps=7", "save_total_limit=2", "max_train_samples=6")
    config = load(TINY, settings(*words, f"pretrained_model_name_or_path={model}", "lora_r=4"))
    runner = build_runner(config, prepare_inputs(config), tmp_path / "work")
    assert {group["initial_lr"] for group in runner.optim_wrapper.param_groups} == {0.125}
    assert runner.model.llm.peft_config["default"].r == 4
    assert runner.model.llm.get_base_model().name_or_path == str(model)
    hooks = {type(hook).__name__: hook for hook in runner.hooks}
    assert (hooks["CheckpointHook"].save_steps, hooks["CheckpointHook"].save_total_limit) == (7, 2)
    assert runner.loop.num_steps == 2 * runner.loop.steps_per_epoch
    config = load(TINY, settings("max_steps=3", "max_train_samples=6"))
    assert build_runner(config, prepare_inputs(config), tmp_path / "other").loop.num_steps == 3


def test_target_modules_on_the_command_line_are_a_list():
    for text in ("q_proj,v_proj", "['q_proj', 'v_proj']", '["q_proj","v_proj"]'):
        values = load(TINY, settings(f"lora_target_modules={text}")).values
        assert values["model"]["lora"]["target_modules"] == ["q_proj", "v_proj"]


def test_the_copy_that_is_edited_may_lie_in_any_folder(tmp_path):
    copy = tmp_path / "a b" / f"{TINY}_copy.py"
    copy.parent.mkdir()
    shutil.copy(builtin_configs()[TINY], copy)
    assert same(load(str(copy)).values, load(TINY).values)
    assert Path(str(copy)).stem == load(str(copy)).name


# ---------------------------------------------------------------- a config run for some of its names


def test_a_config_runs_for_the_names_that_are_wanted_without_importing_the_rest(tmp_path):
    code = (
        "import sys; from medtune.config import load; "
        "values = load('sft', [('max_length', '64'), ('train_dataset.seed', '9')], ['train_dataset']).values; "
        "assert values['train_dataset']['max_length'] == 64 and values['train_dataset']['seed'] == 9; "
        "assert 'model' not in values; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'peft', 'mmengine', 'cv2')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0


def test_what_wanted_names_depend_on_runs_in_whatever_form_it_stands(tmp_path):
    text = """
import math
import not_there
unused = not_there.value
rows = [3]
def grow(x):
    return x + step
step = 1
if step:
    rows = [grow(rows[0]), 7]
spare = rows.pop()
rows.append(math.floor(1.5))
options = dict(a=1)
options["b"] = rows
options["b"] += [9]
wanted = options
"""
    (tmp_path / "c.py").write_text(text)
    assert run(text, tmp_path / "c.py", ["wanted"])["wanted"] == {"a": 1, "b": [4, 1, 9]}
    with pytest.raises(ConfigError, match="not_there"):
        run(text, tmp_path / "c.py")

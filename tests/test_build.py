"""Building a config's dicts, and finding every fault in them before anything is built."""

# ruff: noqa: C408  (nodes are written as configs write them)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import pytest

from medtune.build import accepted_names, build, check, checked_by, raise_faults
from medtune.config import load, split_words
from medtune.errors import ConfigError, ModelError

TINY = "med_llama_tiny_qlora_medqa_e3"


def never(
    size: int,
    kind: Literal["sum", "mean"] = "mean",
    rate: float | None = 0.1,
    on: bool = True,
    name: str = "x",
    bits: Literal[4, 8] | None = None,
    asked: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
    child: object = None,
) -> None:
    """A callable that check must not call."""
    raise AssertionError("check called it")


@checked_by(lambda size, **_: (_ for _ in ()).throw(ModelError(f"no size {size}")) if size < 0 else None)
def prechecked(size: int) -> int:
    return size


def faults_of(*words: str) -> list[str]:
    return check(load(TINY, split_words(words)[1]).values)


def test_a_right_config_has_no_fault_and_nothing_is_called():
    assert check({"a": dict(type=never, size=1, asked=["a"], columns={}, betas=[0.9, 0.95])}) == []
    assert check({"a": dict(type=never, size=1, kind="sum", rate=2, child=[dict(type=never, size=3, rate=None)])}) == []


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (dict(sise=1, size=1), "a.sise: never takes no such argument. Did you mean 'size'"),
        (dict(), "a: never needs 'size'"),
        (dict(size="1"), "a.size: wanted a whole number, got '1'"),
        (dict(size=True), "a.size: wanted a whole number, got True"),
        (dict(size=1.5), "a.size: wanted a whole number, got 1.5"),
        (dict(size={}), "a.size: wanted a whole number, got {}"),
        (dict(size=1, kind="meen"), "a.kind: 'meen' is none of 'sum', 'mean'. Did you mean 'mean'"),
        (dict(size=1, rate="fast"), "a.rate: wanted a number or None, got 'fast'"),
        (dict(size=1, rate=True), "a.rate: wanted a number or None, got True"),
        (dict(size=1, on=1), "a.on: wanted True or False, got 1"),
        (dict(size=1, name=None), "a.name: wanted text, got None"),
        (dict(size=1, bits=5), "a.bits: wanted 4 or 8 or None, got 5"),
        (dict(size=1, asked="Why?"), "a.asked: wanted a list, got 'Why?'"),
        (dict(size=1, columns="A"), "a.columns: wanted a dict or None, got 'A'"),
        (dict(size=1, betas=0.9), "a.betas: wanted a list, got 0.9"),
        (dict(size=1, child=dict(type="never")), "a.child.type: wanted a callable, got 'never'; import it"),
        (dict(size=1, child=[0, (1, dict(type=never))]), "a.child.1.1: never needs 'size'"),
    ],
)
def test_each_kind_of_fault_is_told_with_its_path(arguments, wanted):
    (fault,) = check({"a": dict(type=never, **arguments)})
    assert fault.startswith(wanted)


def test_all_faults_are_found_at_once_and_told_one_a_line():
    faults = faults_of(
        "model.lora.bias=some",
        "model.llm.torch_dtype=fp61",
        "optim_wrapper.optimizer.type=AdamW",
        "overflow=trunkate",
        "max_length=12.5",
        "lr_schedule=cosin",
        "eval_steps=[1]",
        "method=loar",
        "lora_r=0",
        "lora_variant=dorra",
        "batch_size=0",
    )
    both = "train_dataset.overflow, val_dataset.overflow"
    expected = {
        "model.lora.bias": "'some' is none of 'none', 'all', 'lora_only'.",
        "model.llm.torch_dtype": "'fp61' is none of 'auto', 'fp32', 'bf16', 'fp16'. Did you mean 'fp16'",
        "optim_wrapper.optimizer.type": "wanted a callable, got 'AdamW'; import it and name it without quotes",
        both: "'trunkate' is none of 'drop', 'truncate', 'split', 'error'. Did you mean 'truncate'",
        both.replace("overflow", "max_length"): "wanted a whole number, got 12.5",
        "param_scheduler": "lr_schedule 'cosin' is none of 'cosine', 'linear', 'constant', 'wsd'. Did you mean",
        "model.method": "'loar' is none of 'full', 'lora', 'qlora'. Did you mean 'lora'",
        "model.lora.r, train_dataloader.batch_size, val_dataloader.batch_size": "wanted 1 or more, got 0",
        "model.lora_variant": "'dorra' is none of 'rslora', 'dora', 'pissa'. Did you mean 'dora'",
        "default_hooks.validation.interval": "wanted a whole number or None, got [1]",
    }
    assert len(faults) == len(expected)
    for fault in faults:
        where, said = fault.split(": ", 1)
        assert said.startswith(expected[where])
    with pytest.raises(ConfigError) as caught:
        raise_faults(faults)
    first, *lines = str(caught.value).split("\n")
    assert first == f"{len(faults)} faults in the config:"
    assert [line.strip() for line in lines] == faults


def test_settings_that_do_not_go_together_are_all_told_at_once():
    faults = faults_of("save_best=val_loss", "method=qlora", "lora_variant=pissa", "tensorboard=True")
    assert [fault.split(": ")[0] for fault in faults] == ["model", "val_dataset"]
    faults = faults_of("val_ratio=0.1", "val_data_path=medication-qa")
    assert faults == ["val_dataset: val_ratio and val_data_path both name validation data; set one of them."]


def test_one_fault_is_one_line_and_no_fault_is_none():
    with pytest.raises(ConfigError, match=r"^only this$"):
        raise_faults(["only this"])
    raise_faults([])


def test_typos_do_not_hide_behind_keyword_arguments():
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    node = dict(
        type=AutoModelForCausalLM.from_pretrained,
        pretrained_model_name_or_path="x",
        torch_dtyp="auto",
        quantization_config=dict(type=BitsAndBytesConfig, load_in_4bits=True, bnb_4bit_quant_type="nf4"),
    )
    tokenizer = dict(type=AutoTokenizer.from_pretrained, pretrained_model_name_or_path="x", padding_sid="right")
    assert [fault.split(":")[0] for fault in check({"llm": node, "tokenizer": tokenizer})] == [
        "llm.quantization_config.load_in_4bits",
        "llm.torch_dtyp",
        "tokenizer.padding_sid",
    ]
    right = dict(type=AutoTokenizer.from_pretrained, pretrained_model_name_or_path="x", padding_side="right")
    assert check({"tokenizer": right}) == []


def test_a_missing_argument_of_a_prechecked_callable_is_a_fault_and_no_crash():
    assert check({"a": dict(type=prechecked)}) == ["a: prechecked needs 'size'"]
    assert check({"a": dict(type=prechecked, size="1")}) == ["a.size: wanted a whole number, got '1'"]
    assert check({"a": dict(type=prechecked, size=-1)}) == ["a: no size -1"]


def test_what_the_engine_adds_is_not_missed():
    from torch.optim import AdamW

    assert check({"optimizer": dict(type=AdamW, lr=0.1)}) == []


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        (
            "prompt_template=internlm_chatt",
            "train_dataset, val_dataset: unknown prompt_template 'internlm_chatt'. Did you mean",
        ),
        ("pretrained_model_name_or_path=./nowhere", "tokenizer, model.llm: ./nowhere: no such folder"),
        ("tokenizer_name_or_path=./nowhere/deep/er", "tokenizer: ./nowhere/deep/er: no such folder"),
    ],
)
def test_names_that_could_never_work_are_found_before_anything_is_loaded(word, wanted):
    assert any(fault.startswith(wanted) for fault in faults_of(word))


def test_a_model_folder_without_a_tokenizer_is_found_before_anything_is_loaded(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    faults = faults_of(f"pretrained_model_name_or_path={tmp_path}")
    assert [fault for fault in faults if "the folder has no tokenizer" in fault and "tokenizer_name_or_path" in fault]
    (tmp_path / "config.json").unlink()
    assert any(
        "no config.json in this folder" in fault for fault in faults_of(f"pretrained_model_name_or_path={tmp_path}")
    )


def test_a_hub_id_is_not_looked_up_by_check():
    assert faults_of("pretrained_model_name_or_path=nobody/has-this-model") == []


def test_nodes_are_built_from_the_inside_out_and_shared_ones_once():
    made = []

    def make(**arguments):
        made.append(arguments)
        return ["made", arguments]

    shared = dict(type=make, n=1)
    tree = dict(type=make, left=shared, right=[shared, (shared, 2)], plain=dict(a=shared))
    memo: dict = {}
    result = build(tree, memo)
    assert made[0] == {"n": 1} and len(made) == 2
    left, right, plain = (result[1][key] for key in ("left", "right", "plain"))
    assert left is right[0] is right[1][0] is plain["a"]
    assert right[1][1] == 2
    assert build(shared, memo) is left
    assert build(shared) is not left


def test_a_shared_dict_is_told_of_once_and_equal_faults_on_one_line():
    shared = dict(type=never)
    assert check({"a": shared, "b": [shared, shared]}) == ["a: never needs 'size'"]
    assert check({"a": dict(type=never), "b": [dict(type=never)]}) == ["a, b.0: never needs 'size'"]


def test_accepted_names_are_those_of_the_callable():
    assert accepted_names(dict(type=prechecked)) == ["size"]
    assert accepted_names(dict(size=1)) == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("batch_size=0", "train_dataloader.batch_size, val_dataloader.batch_size: wanted 1 or more, got 0"),
        ("accumulative_counts=-1", "train_dataloader.accumulative_counts: wanted 1 or more, got -1"),
        ("max_epochs=-1", "train_cfg.max_epochs: wanted a number above 0, got -1"),
        ("max_steps=0", "train_cfg.max_steps: wanted 1 or more, got 0"),
        ("warmup_ratio=5", "param_scheduler.warmup_ratio: wanted a number from 0 to 1, got 5"),
        ("save_steps=0", "default_hooks.checkpoint.save_steps: wanted 1 or more, got 0"),
        ("logging_interval=0", "default_hooks.logger.interval: wanted 1 or more, got 0"),
        ("max_length=1", "train_dataset.max_length, val_dataset.max_length: wanted 2 or more, got 1"),
        ("val_ratio=1.5", "train_dataset.val_ratio, val_dataset.val_ratio: wanted a number from 0 to 1, got 1.5"),
    ],
)
def test_a_number_out_of_range_is_a_fault_that_names_the_range(override, said):
    name, _, value = override.partition("=")
    assert check(load("med_llama_tiny_lora_medqa_e3", [(name, value)]).values) == [said]

"""Hostile configs of other programs, as `medtune migrate` reads them; what it writes is a program, and must be tame."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from hostile import CANARY, World, artefact
from hostile_files import ESCAPES, python, shell

LLAMA_FACTORY = (
    "model_name_or_path: {model}\nstage: sft\nfinetuning_type: lora\ndataset: {data}\ntemplate: {template}\n"
)
XTUNER = """\
from mmengine.dataset import DefaultSampler
from xtuner.dataset import process_hf_dataset
from xtuner.model import SupervisedFinetune
pretrained_model_name_or_path = {model}
data_path = {data}
max_length = {length}
lr = {lr}
{code}
model = dict(type=SupervisedFinetune, llm=dict(pretrained_model_name_or_path=pretrained_model_name_or_path))
train_dataloader = dict(batch_size=1, dataset=dict(type=process_hf_dataset, dataset=dict(path=data_path)))
"""


def old(name: str, file: str, content: str | Callable[[World], str], fast: bool = False) -> None:
    """A config of this name and text."""

    def make(world: World, folder: Path) -> Path:
        text = content(world) if callable(content) else content
        (folder / file).write_text(text, encoding="utf-8", errors="surrogatepass")
        return folder / file

    make.__name__ = name
    artefact("foreign", fast)(make)


def yaml(name: str, fast: bool = False, **values: Callable[[World], str] | str) -> None:
    """A LLaMA-Factory file with other values."""
    start = {"model": "x/y", "data": "alpaca", "template": "qwen"}

    def content(world: World) -> str:
        told = {key: value(world) if callable(value) else value for key, value in values.items()}
        return LLAMA_FACTORY.format(**{**start, **told})

    old(name, "x.yaml", content, fast)


def xtuner(name: str, fast: bool = False, **values: Callable[[World], str] | str) -> None:
    """An XTuner config with other values, or code of its own."""
    start = {"model": "'x/y'", "data": "'z'", "length": "64", "lr": "1e-3", "code": ""}

    def content(world: World) -> str:
        told = {key: value(world) if callable(value) else value for key, value in values.items()}
        return XTUNER.format(**{**start, **told})

    old(name, "x.py", content, fast)


def break_out(world: World) -> str:
    """Text that ends a string, of whatever quotes, and goes on as a program."""
    return f"x'\"\\\n'''\"\"\"\n{python(world, 'by_migrated')}#"


def _statement(world: World) -> str:
    return f"{CANARY} = __import__('os').mkdir('{world.canary}/by_yaml')"


LAUGHS = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'lol'}]" for i in range(10))
yaml("yaml_object", model=lambda w: f"!!python/object/apply:os.system ['{shell(w)}']", fast=True)
yaml("yaml_name", model="!!python/name:os.system", data="!!python/module:os")
yaml("yaml_breaks_out", model=lambda w: repr(break_out(w)), template=lambda w: f"|\n  {break_out(w)}")
yaml("yaml_breaks_out_by_escapes", model=lambda w: f'"a\\n{_statement(w)}\\n"')
yaml("yaml_key_breaks_out", template=lambda w: f'qwen\n"x = 1\\n{_statement(w)}": 1', fast=True)
yaml("yaml_escapes", model=f'"{ESCAPES.encode("unicode_escape").decode()}"', template=ESCAPES)
yaml("yaml_laughs", template=f"\n{LAUGHS}")
yaml("yaml_itself", template="\nx: &x [*x]")
yaml("yaml_include", template="!include /etc/passwd", data="!ENV ${HOME}")
old("yaml_deep", "x.yaml", "stage: sft\nmodel_name_or_path: " + "[" * 50_000)
old(
    "yaml_giant_number", "x.yaml", LLAMA_FACTORY.format(model="x", data="y", template="z") + "cutoff_len: " + "9" * 5000
)
xtuner("xtuner_runs", code=python, fast=True)
xtuner("xtuner_calls", model=lambda w: f"__import__('os').system({shell(w)!r})", fast=True)
xtuner("xtuner_f_string", model=lambda w: "f\"{__import__('os').mkdir(" + f"{str(w.canary)!r}" + ')}"')
xtuner("xtuner_breaks_out", model=lambda w: repr(break_out(w)), data=lambda w: repr(break_out(w)))
xtuner("xtuner_escapes", model=repr(ESCAPES), code=f"# {ESCAPES}", fast=True)
xtuner("xtuner_giant_power", length="9 ** 9 ** 9", lr="1e-3 ** -99999", fast=True)
xtuner("xtuner_giant_text", model="'a' * 10 ** 11", data="['a'] * 10 ** 11")
xtuner("xtuner_shift", length="1 << 10 ** 12")
xtuner("xtuner_attributes", data="''.__class__.__mro__[1].__subclasses__()")
xtuner("xtuner_deep", length="(" * 5000 + ")" * 5000)
xtuner("xtuner_deep_sum", length="+".join(["1"] * 50_000))
xtuner("xtuner_base", code="_base_ = ['../../../../../../etc/passwd']\nwith read_base():\n    from .evil import *")
xtuner("xtuner_unknown_type", code=lambda w: f"custom_hooks = [dict(type='os.system', command={shell(w)!r})]")
xtuner("xtuner_itself", code="lr = lr\nmax_length = max_length * max_length")
TRAIN = "llamafactory-cli train --stage sft"
TOLD = "--model_name_or_path $({0}) --dataset `{0}` --output_dir '$({0})'; {0} && {0}\n"
old("script_runs", "x.sh", lambda w: f"{shell(w)}\nCUDA_VISIBLE_DEVICES=0 {TRAIN} {TOLD.format(shell(w))}", fast=True)
old("script_medicalgpt", "x.sh", lambda w: f"python supervised_finetuning.py {TOLD.format(shell(w))}")
old(
    "script_breaks_out", "x.sh", lambda w: f"{TRAIN} --template qwen --model_name_or_path {shlex.quote(break_out(w))}\n"
)
old("script_quotes", "x.sh", f"{TRAIN} --template 'a\n")
old("script_escapes", "x.sh", f"{TRAIN} --{ESCAPES} {ESCAPES} --model_name_or_path a\n")
old("script_nul", "x.sh", f"{TRAIN} --model_name_or_path a\0b\n")

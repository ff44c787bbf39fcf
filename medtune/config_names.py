"""The names of configs: their grammar, and the text of the config that a name means.

A name is `{model}_{full|lora|qlora}_{data}_e{epochs}`, and `_gpu{number}` behind it for that many GPUs. The models are
those of `families`, the data sets the files of `configs/_base_/data`. So any of them go together, whether there is a
file of that name or not.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection
from typing import NamedTuple

from medtune.config_text import assignments
from medtune.errors import ConfigError, nearest
from medtune.families import MODELS, REFUSED, Model

GRAMMAR = re.compile(r"(.+?)_(full|lora|qlora)_(.+)_e([1-9]\d*)(?:_gpu([1-9]\d*))?")
METHODS = {"full": "full fine-tune", "lora": "LoRA", "qlora": "QLoRA"}
LR_OF_ADAPTERS, LR_OF_FULL = "0.0002", "2e-5"  # of the base, unless the stage or the data set has its own
PACKS_IN_A_STEP = 16  # the base's accumulative_counts; several GPUs share them


class Parts(NamedTuple):
    """What a config's name tells."""

    model: str
    method: str
    data: str
    epochs: int
    gpus: int | None = None


def split_name(name: str) -> Parts | None:
    """Take a name apart by the grammar, or return None; whether its parts exist is not asked.

    >>> split_name("qwen3_8b_qlora_medical_e1")
    Parts(model='qwen3_8b', method='qlora', data='medical', epochs=1, gpus=None)
    """
    match = GRAMMAR.fullmatch(name)
    if match is None:
        return None
    model, method, data, epochs, gpus = match.groups()
    return Parts(model, method, data, int(epochs), int(gpus) if gpus else None)


def known_parts(name: str, data_sets: Collection[str]) -> Parts | None:
    """The parts of a name that follows the grammar, or None for a name that does not.

    Args:
        name: of a config.
        data_sets: names of the known data sets.

    Raises:
        ConfigError: its model or data set is unknown, with the near ones, or the model is refused, with the reason.
    """
    parts = split_name(name)
    if parts is None:
        return None
    if reason := REFUSED.get(parts.model):
        raise ConfigError(f"{name}: {parts.model} is not trained here: {reason}")
    faults = []
    if parts.model not in MODELS:
        faults.append(f"no model {parts.model!r} is known.{nearest(parts.model, MODELS)}")
    if parts.data not in data_sets:
        faults.append(f"no data set {parts.data!r} is known.{nearest(parts.data, data_sets)}")
    if faults:
        listed = "`medtune list-cfg --models` and `--data` list what names may be made of."
        raise ConfigError(f"no config named {name!r}: {' And '.join(faults)} {listed}")
    return parts


def config_text(parts: Parts, data_text: str) -> str:
    """The config that a name means: a model and a method, on top of a data set's base.

    Args:
        parts: of the name, known ones.
        data_text: flat text of the data set's base. The first line of its docstring says what the data is; a format
            that it sets, because its rows or its stage need one, comes before the model's.
    """
    model = MODELS[parts.model]
    below = {name: ast.unparse(place.value) for name, place in assignments(data_text).items()}
    settings = [f"pretrained_model_name_or_path = {_quoted(model.hub_id)}"]
    if model.template is not None and below["prompt_template"] == "None":
        settings.append(f"prompt_template = {_quoted(model.template)}")
    settings.append(f"method = {_quoted(parts.method)}")
    if parts.method == "full" and below["lr"] == LR_OF_ADAPTERS:
        settings.append(f"lr = {LR_OF_FULL}")
    if parts.method != "full" and model.lora:
        settings.append(model.lora)
    if parts.gpus is not None:
        settings.append(f"accumulative_counts = {max(PACKS_IN_A_STEP // parts.gpus, 1)}")
    settings.append(f"max_epochs = {parts.epochs}")
    docstring = _docstring(parts, model, ast.get_docstring(ast.parse(data_text)) or "")
    return "\n".join([docstring, "", f'_base_ = "data/{parts.data}"', *settings, ""])


def _docstring(parts: Parts, model: Model, data_docstring: str) -> str:
    first, _, rest = data_docstring.strip().partition("\n")
    epochs = "1 epoch" if parts.epochs == 1 else f"{parts.epochs} epochs"
    gpus = f", {parts.gpus} GPUs" if parts.gpus else ""
    line = f"{model.title}, {METHODS[parts.method]}, {epochs}{gpus}: {first}"
    notes = [note for note in (model.note, rest.strip()) if note]
    return '"""' + "\n\n".join([line, *notes]) + ("\n" if notes else "") + '"""'


def _quoted(value: str | dict[str, str]) -> str:
    """A value as a config writes it: text in double quotes, a mapping as dict(...).

    >>> print(_quoted({"INSTRUCTION": "a"}))
    dict(INSTRUCTION="a")
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # also Python
    return "dict(" + ", ".join(f"{key}={_quoted(item)}" for key, item in value.items()) + ")"

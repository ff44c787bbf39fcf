"""Hostile model folders: config.json, tokenizers, chat templates, indexes, and Python files beside them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hostile import World, artefact
from hostile_files import ESCAPES, Calls, python, shell

MODULES = ("modeling_evil", "configuration_evil", "tokenization_evil", "config", "torch", "medtune_canary")


def model_copy(world: World, folder: Path) -> Path:
    """The honest base, with Python files beside it as remote code has them."""
    target = Path(shutil.copytree(world.base, folder / "model"))
    for name in MODULES:
        (target / f"{name}.py").write_text(python(world, f"by_{name}"))
    (target / "custom_generate").mkdir()
    (target / "custom_generate" / "generate.py").write_text(python(world, "by_generate"))
    return target


def model_json(name: str, file: str, fast: bool = False, **changes: Any) -> None:
    """A model with other entries in one of its JSON files; None takes an entry away."""

    def make(world: World, folder: Path) -> Path:
        target = model_copy(world, folder)
        there = json.loads((target / file).read_text()) if (target / file).is_file() else {}
        merged = {key: value for key, value in {**there, **changes}.items() if value is not None}
        (target / file).write_text(json.dumps(merged))
        return target

    make.__name__ = name
    artefact("model", fast)(make)


def model_file(name: str, file: str, content: Callable[[World], str | bytes], fast: bool = False) -> None:
    """A model with one other file."""

    def make(world: World, folder: Path) -> Path:
        target = model_copy(world, folder)
        text = content(world)
        (target / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        return target

    make.__name__ = name
    artefact("model", fast)(make)


AUTO_MAP = {"AutoConfig": "configuration_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"}
AUTO_MAP |= {"AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"]}

model_json("config_auto_map", "config.json", fast=True, auto_map=AUTO_MAP)
model_json("config_unknown_type_auto_map", "config.json", fast=True, auto_map=AUTO_MAP, model_type="evil")
model_json("config_remote_auto_map", "config.json", auto_map={"AutoModelForCausalLM": "evil/repo--modeling.Evil"})
model_json("config_attn_internal", "config.json", fast=True, _attn_implementation_internal="evil/kernel")
model_json("config_attn", "config.json", attn_implementation="evil/kernel:run", _attn_implementation="evil/kernel")
model_json("config_attn_nested", "config.json", text_config={"_attn_implementation_internal": "evil/kernel"})
model_json("config_experts", "config.json", _experts_implementation="evil/kernel", use_kernels=True)
model_json("config_quantization", "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
model_json("config_quantization_unknown", "config.json", quantization_config={"quant_method": "os.system"})
model_json(
    "config_torchao",
    "config.json",
    quantization_config={"quant_method": "torchao", "quant_type": {"_type": "os.system"}},
)
model_json("config_architectures", "config.json", architectures=["../../evil", "os.system"])
model_json("config_type_list", "config.json", model_type=["llama"])
model_json("config_type_traversal", "config.json", model_type="../../evil")
model_json("config_dtype", "config.json", dtype="__import__('os').system('id')")
model_json("config_giant", "config.json", hidden_size=10**12, num_hidden_layers=10**9, vocab_size=10**12)
model_json(
    "config_text_sizes", "config.json", hidden_size="x", num_hidden_layers=None, max_position_embeddings="9" * 50
)
model_json("config_rope", "config.json", rope_parameters={"rope_type": "evil", "rope_theta": []})
model_json("config_act", "config.json", hidden_act="os.system")
model_json("config_transformers_weights", "config.json", transformers_weights="../../honest/base/model.safetensors")
model_json("generation_custom", "generation_config.json", custom_generate="evil/generate", trust_remote_code=True)
model_json(
    "generation_types", "generation_config.json", max_length="x", eos_token_id={"a": 1}, cache_implementation="evil"
)
model_json(
    "tokenizer_auto_map", "tokenizer_config.json", fast=True, auto_map={"AutoTokenizer": AUTO_MAP["AutoTokenizer"]}
)
model_json("tokenizer_class_unknown", "tokenizer_config.json", tokenizer_class="EvilTokenizer", auto_map=AUTO_MAP)
model_json("tokenizer_class_traversal", "tokenizer_config.json", tokenizer_class="../../evil.Evil")
model_json("tokenizer_class_list", "tokenizer_config.json", tokenizer_class=["x"])
model_json("tokenizer_tokens_of_wrong_types", "tokenizer_config.json", eos_token=[1], added_tokens_decoder={"x": "y"})
model_json("tokenizer_files_elsewhere", "tokenizer_config.json", vocab_file="/etc/passwd", tokenizer_file="/etc/passwd")
model_json(
    "adapter_in_a_model", "adapter_config.json", fast=True, peft_type="LORA", base_model_name_or_path="evil/base"
)
model_json("index_traversal", "model.safetensors.index.json", weight_map={"x": "../../../../../etc/passwd"})

model_file("config_deep", "config.json", lambda w: '{"a":' * 100_000, fast=True)
model_file("config_a_list", "config.json", lambda w: "[1]")
model_file("config_latin", "config.json", lambda w: b'{"model_type": "ll\xe4ma"}')
model_file(
    "config_escapes",
    "config.json",
    lambda w: json.dumps({"model_type": ESCAPES, "architectures": [ESCAPES]}),
    fast=True,
)
model_file("tokenizer_deep", "tokenizer.json", lambda w: "[" * 1_000_000)
model_file("tokenizer_cut", "tokenizer.json", lambda w: '{"version": "1.0", "truncation":', fast=True)
model_file("tokenizer_empty", "tokenizer.json", lambda w: "{}")
model_file("tokenizer_huge", "tokenizer.json", lambda w: huge_tokenizer(w))
model_file("tokenizer_slow_pattern", "tokenizer.json", lambda w: slow_tokenizer(w))
model_file("tokenizer_config_deep", "tokenizer_config.json", lambda w: '{"a":' * 100_000)
model_file("tokenizer_model_pickle", "tokenizer.model", lambda w: pickle.dumps(Calls(os.system, shell(w))))
model_file("weights_pickle", "model.safetensors", lambda w: pickle.dumps(Calls(os.system, shell(w))), fast=True)
model_file("weights_past_the_end", "model.safetensors", lambda w: (1 << 40).to_bytes(8, "little") + b"{}")


def huge_tokenizer(world: World) -> str:
    """A vocabulary of half a million entries, 20 MB."""
    there = json.loads((world.base / "tokenizer.json").read_text())
    there["model"]["vocab"] |= {f"token_number_{i}_of_too_many": 20_000 + i for i in range(500_000)}
    return json.dumps(there)


def slow_tokenizer(world: World) -> str:
    there = json.loads((world.base / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"Regex": "(((.+)+)+)+\\u0000"}, "behavior": "Isolated", "invert": False}
    return json.dumps({**there, "pre_tokenizer": split})


@artefact("model", fast=True)
def weights_bin(world: World, folder: Path) -> Path:
    target = model_copy(world, folder)
    (target / "model.safetensors").unlink()
    torch.save({"lm_head.weight": torch.ones(2), "x": Calls(os.system, shell(world))}, target / "pytorch_model.bin")
    return target


@artefact("model")
def weights_bin_index_traversal(world: World, folder: Path) -> Path:
    target = model_copy(world, folder)
    (target / "model.safetensors").unlink()
    torch.save({"x": Calls(os.system, shell(world))}, folder / "outside.bin")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "../outside.bin"}}
    (target / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return target


@artefact("model")
def index_names_of_numbers(world: World, folder: Path) -> Path:
    target = model_copy(world, folder)
    (target / "model.safetensors").unlink()
    (target / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": 1, "b": None}}))
    return target


# ---------------------------------------------------------------- chat templates


def template(name: str, text: str | Callable[[World], str], fast: bool = False) -> None:
    """A model whose chat template is this."""
    model_file(f"template_{name}", "chat_template.jinja", text if callable(text) else lambda w: text, fast)


ATTRIBUTES = "''.__class__.__mro__[1].__subclasses__()"
template("subclasses", "{{ " + ATTRIBUTES + " }}")
template("globals", lambda w: "{{ cycler.__init__.__globals__.os.system('" + shell(w) + "') }}", fast=True)
template("lipsum", lambda w: "{{ lipsum.__globals__['os'].popen('" + shell(w) + "').read() }}")
template("attr_filter", "{{ ''|attr('__class__')|attr('__mro__') }}")
template(
    "format_map",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}{{ '{a.__class__}'.format_map({'a': 1}) }}",
)
template("namespace", "{% set ns = namespace(__class__=1) %}{% set ns.__dict__ = {} %}{{ ns }}")
template("self", "{{ self._TemplateReference__context.environment.from_string('x') }}")
template("exception", lambda w: "{{ raise_exception.__globals__['jinja2'].os.system('" + shell(w) + "') }}")
template("tracker", "{{ messages.__init__.__globals__ }}{{ tojson.__globals__ }}")
template("mutates", "{{ messages.clear() }}{{ messages.append(1) }}")
template("include", "{% include '/etc/passwd' %}")
template("import", "{% import 'os' as os %}{{ os.system('id') }}")
template("extends", "{% extends '../../../../etc/passwd' %}")
template("bad_syntax", "{% for m in messages %}{{ m.content")
template("escapes", "{{ raise_exception('" + ESCAPES + "') }}", fast=True)
template("endless_loop", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
template("endless_recursion", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", fast=True)
template("giant_power", "{{ 9 ** 9 ** 9 }}", fast=True)
template("growing_number", "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}")
template("giant_text", "{{ 'a' * 10 ** 11 }}", fast=True)
template("giant_list", "{{ ([0] * 10 ** 11) | length }}")
template("giant_padding", "{{ 'a'.ljust(100000000000) }}")
template("giant_format", "{{ '%0100000000000d' | format(1) }}{{ '{:>100000000000}'.format(1) }}")
template("giant_lipsum", "{{ lipsum(n=100000000) }}")
template("long_text", "{% for a in range(9999) %}{% for b in range(999) %}many words {% endfor %}{% endfor %}")
template("deep_nesting", "{% if 1 %}" * 3000 + "x" + "{% endif %}" * 3000)
template("long_source", "{{ '" + "x" * 30_000_000 + "' }}")
template("writes_its_own_answers", "{% for m in messages %}{{ loop.index0 }}{{ messages|length }}{% endfor %}")

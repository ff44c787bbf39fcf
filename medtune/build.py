"""From a config's dicts to objects: `dict(type=callable, **arguments)` is a call, made from the inside out.

`check` finds every fault that can be found without making the call: a `type` that is not callable, an argument the
callable does not take, one it misses, a value outside its `Literal` choices or of another type, and whatever the
callable's own `precheck` (see `checked_by`) reports. It runs before a weight is loaded and returns all faults.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from medtune.errors import ConfigError, MedtuneError, nearest

# Arguments that the engine adds when it builds a node: a config need not give them.
INJECTED = frozenset({"params", "optimizer", "runner", "dataset", "dataloader", "model", "num_steps", "save_dir"})

# Callables that take **kwargs hide typos; these are the names they do accept (transformers 5).
FROM_PRETRAINED_NAMES = frozenset(
    "pretrained_model_name_or_path trust_remote_code revision cache_dir local_files_only token subfolder dtype "
    "torch_dtype device_map max_memory offload_folder quantization_config attn_implementation low_cpu_mem_usage "
    "use_safetensors variant config padding_side truncation_side use_fast model_max_length add_bos_token "
    "add_eos_token chat_template legacy".split()
)


def checked_by(precheck: Callable[..., None]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: `precheck(**arguments)` raises a MedtuneError for arguments that could never work, cheaply."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        function.precheck = precheck  # type: ignore[attr-defined]
        return function

    return mark


def build(node: Any, memo: dict[int, Any] | None = None) -> Any:
    """Build a config node from the inside out; a dict that stands in several places is built once.

    Args:
        node: any value; dicts with a `type` become the result of calling it with the other items.
        memo: id of a dict -> what was built from it; pass the same one to share objects between calls.
    """
    memo = {} if memo is None else memo
    if isinstance(node, dict):
        if id(node) not in memo:
            built = {key: build(value, memo) for key, value in node.items() if key != "type"}
            memo[id(node)] = node["type"](**built) if "type" in node else built
        return memo[id(node)]
    if isinstance(node, (list, tuple)):
        return type(node)(build(item, memo) for item in node)
    return node


def accepted_names(node: dict[str, Any]) -> list[str]:
    """Argument names that a node's `type` takes; empty where it has none or cannot be inspected."""
    make = node.get("type")
    if not callable(make):
        return []
    names, _, _ = _parameters(make)
    return list(names)


def check(values: dict[str, Any]) -> list[str]:
    """Return every fault in a config's values as "path: what is wrong", without building anything."""
    faults: dict[str, None] = {}
    seen: set[int] = set()
    for name, value in values.items():
        for fault in _check(value, name, seen):
            faults.setdefault(fault)
    return list(faults)


def raise_faults(faults: list[str]) -> None:
    """Raise one ConfigError that lists all faults, or return."""
    if len(faults) == 1:
        raise ConfigError(faults[0])
    if faults:
        raise ConfigError(f"{len(faults)} faults in the config:" + "".join(f"\n  {fault}" for fault in faults))


def _check(node: Any, where: str, seen: set[int]) -> Iterator[str]:
    if isinstance(node, dict):
        if id(node) in seen:
            return
        seen.add(id(node))
        child_faults = [f for key, child in node.items() for f in _check(child, f"{where}.{key}", seen)]
        yield from child_faults
        if "type" in node:
            yield from _check_call(node, where, run_precheck=not child_faults)
    elif isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            yield from _check(item, f"{where}.{i}", seen)


def _check_call(node: dict[str, Any], where: str, run_precheck: bool) -> Iterator[str]:
    make = node["type"]
    if not callable(make):
        yield f"{where}.type: wanted a callable, got {make!r}; import it and name it without quotes"
        return
    arguments = {key: value for key, value in node.items() if key != "type"}
    names, required, annotations = _parameters(make)
    label = getattr(make, "__name__", str(make))
    unknown = [key for key in arguments if names and key not in names]
    for key in unknown:
        yield f"{where}.{key}: {label} takes no such argument.{nearest(key, names)}"
    for key in required - set(arguments) - INJECTED:
        yield f"{where}: {label} needs {key!r}"
    wrong = [fault for key in arguments if (fault := _wrong_value(arguments[key], annotations.get(key)))]
    for key in arguments:
        if fault := _wrong_value(arguments[key], annotations.get(key)):
            yield f"{where}.{key}: {fault}"
    precheck = getattr(make, "precheck", None)
    if precheck is not None and run_precheck and not unknown and not wrong:
        try:
            precheck(**arguments)
        except MedtuneError as fault:
            yield f"{where}: {fault}"


def _parameters(make: Callable[..., Any]) -> tuple[list[str], set[str], dict[str, Any]]:
    """Accepted names (empty: anything), required names and annotations of a callable."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return [], set(), {}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [p.name for p in named]
    if open_ended:
        if getattr(make, "__name__", "") == "from_pretrained":
            names = [*names, *FROM_PRETRAINED_NAMES]
        elif not inspect.isclass(make):
            names = []
    required = {p.name for p in named if p.default is p.empty}
    target = make.__init__ if inspect.isclass(make) else make  # type: ignore[misc]
    try:
        annotations = typing.get_type_hints(target)
    except Exception:  # a library's annotation may name a type that only its type checker imports
        annotations = {}
    return names, required, annotations


def _wrong_value(value: Any, annotation: Any) -> str | None:
    """Say what is wrong with a plain value under a plain annotation (Literal, numbers, text), or None."""
    if isinstance(value, dict) or annotation is None:
        return None
    choices = _alternatives(annotation)
    literals = [c for a in choices if typing.get_origin(a) is typing.Literal for c in typing.get_args(a)]
    plain = [a for a in choices if a in (bool, int, float, str, type(None))]
    literal_count = sum(typing.get_origin(a) is typing.Literal for a in choices)
    if not plain and not literals or len(plain) + literal_count < len(choices):
        return None
    if value in literals or any(_fits(value, a) for a in plain):
        return None
    if literals and isinstance(value, str):
        return f"{value!r} is none of {', '.join(map(repr, literals))}.{nearest(value, map(str, literals))}"
    wanted = " or ".join([repr(c) for c in literals] + [a.__name__ for a in plain])
    return f"wanted {wanted}, got {value!r}"


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if union else (annotation,)


def _fits(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)

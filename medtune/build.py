"""From a config's dicts to objects: `dict(type=callable, **arguments)` is a call, made from the inside out.

`check` finds every fault that can be found without making the call: a `type` that is not callable, an argument the
callable does not take, one it misses, a value outside its `Literal` choices or of another type, and whatever the
callable's own `precheck` (see `checked_by`) reports. It runs before a weight is loaded and returns all faults.
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from medtune.errors import ConfigError, UsageError, nearest

# Arguments that the engine adds when it builds a node: a config need not give them.
INJECTED = frozenset({"params", "optimizer", "num_steps", "runner", "dataloader", "save_dir"})

# Callables that take **kwargs hide typos; these are the names they do accept (transformers 5).
FROM_PRETRAINED_NAMES = (
    "pretrained_model_name_or_path trust_remote_code revision cache_dir local_files_only token subfolder dtype "
    "torch_dtype device_map max_memory offload_folder quantization_config attn_implementation low_cpu_mem_usage "
    "use_safetensors variant config padding_side truncation_side use_fast model_max_length add_bos_token "
    "add_eos_token bos_token eos_token pad_token unk_token chat_template legacy"
)

# Kinds of values that can be told without a call, and what a user calls them.
NAMES_OF_KINDS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "None",
    list: "a list",
    tuple: "a list",
    Sequence: "a list",
    dict: "a dict",
    Mapping: "a dict",
}


@dataclass(frozen=True)
class Within:
    """Bounds of a number in an annotation, `Annotated[int, Within(1)]`, which `check` holds a config's value to."""

    low: float
    high: float = math.inf
    above_low: bool = False
    """True leaves out `low` itself."""

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.above_low else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"a number from {self.low} to {self.high}"
        return f"a number above {self.low}" if self.above_low else f"{self.low} or more"


Made = TypeVar("Made", bound=Callable[..., Any])
Count = Annotated[int, Within(1)]
Share = Annotated[float, Within(0, 1)]
Positive = Annotated[float, Within(0, above_low=True)]

# Bounds of arguments that other packages annotate as plain numbers.
BOUNDS: dict[str, dict[str, Any]] = {
    "LoraConfig": {"r": Count, "lora_alpha": Positive, "lora_dropout": Annotated[float, Within(0, 1)]},
}


def checked_by(precheck: Callable[..., Any]) -> Callable[[Made], Made]:
    """Decorator: `precheck(**arguments)` raises, cheaply, for arguments that could never work.

    A UsageError becomes one of the config's faults; an EnvironmentFault ends the check at once.
    """

    def mark(function: Made) -> Made:
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
    if type(node) in (list, tuple):
        return type(node)(build(item, memo) for item in node)
    return node


def accepted_names(node: dict[str, Any]) -> list[str]:
    """Argument names that a node's `type` takes; empty where it has none or cannot be inspected."""
    make = node.get("type")
    if not callable(make):
        return []
    names, _, _ = _parameters(make)
    return list(names)


def only_accepted(node: dict[str, Any], **offered: Any) -> dict[str, Any]:
    """Of the arguments that the engine offers, those that a node's `type` takes."""
    accepted = accepted_names(node)
    return {name: value for name, value in offered.items() if name in accepted}


def check(values: dict[str, Any]) -> list[str]:
    """Return every fault in a config's values as "path: what is wrong", without building anything.

    What is wrong alike in several places, as a setting that both data sets take, is one fault: "path, path: ...".
    """
    places: dict[str, list[str]] = {}
    seen: set[int] = set()
    for name, value in values.items():
        for where, fault in _check(value, name, seen):
            places.setdefault(fault, []).append(where)
    lines = {fault.replace("\n", "\\n"): where for fault, where in places.items()}  # a name may hold line ends
    return [f"{', '.join(where)}: {fault}" for fault, where in lines.items()]


def raise_faults(faults: Sequence[str]) -> None:
    """Raise one ConfigError that lists all faults, or return."""
    if len(faults) == 1:
        raise ConfigError(faults[0])
    if faults:
        raise ConfigError(f"{len(faults)} faults in the config:" + "".join(f"\n  {fault}" for fault in faults))


def _check(node: Any, where: str, seen: set[int]) -> Iterator[tuple[str, str]]:
    """Yield (path, fault) for a node and all below it."""
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


def _check_call(node: dict[str, Any], where: str, run_precheck: bool) -> Iterator[tuple[str, str]]:
    make = node["type"]
    if not callable(make):
        yield f"{where}.type", f"wanted a callable, got {make!r}; import it and name it without quotes"
        return
    arguments = {key: value for key, value in node.items() if key != "type"}
    names, required, annotations = _parameters(make)
    label = getattr(make, "__name__", str(make))
    faults = [
        (f"{where}.{key}", f"{label} takes no such argument.{nearest(str(key), names)}")
        for key in arguments
        if names and key not in names
    ]
    faults += [(where, f"{label} needs {key!r}") for key in sorted(required - set(arguments) - INJECTED)]
    for key, value in arguments.items():
        if fault := _wrong_value(value, annotations.get(key)):
            faults.append((f"{where}.{key}", fault))
    yield from faults
    precheck = getattr(make, "precheck", None)
    if precheck is not None and run_precheck and not faults:
        try:
            precheck(**arguments)
        except UsageError as refusal:
            yield where, str(refusal)


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
            names = [*names, *FROM_PRETRAINED_NAMES.split()]
        elif not inspect.isclass(make):
            names = []
    required = {p.name for p in named if p.default is p.empty}
    annotations = {p.name: _resolved(p.annotation, make) for p in named if p.annotation is not p.empty}
    annotations |= BOUNDS.get(getattr(make, "__name__", ""), {})
    base = getattr(make, "__base__", None)
    if open_ended and base is not None and base.__module__.startswith("medtune."):  # **rest goes to it
        inherited, needed, told = _parameters(base)
        names = list(dict.fromkeys([*names, *inherited]))
        required, annotations = required | needed, told | annotations
    return names, required, annotations


def _resolved(annotation: Any, make: Callable[..., Any]) -> Any:
    """An annotation as a type, or None where it names what only a type checker imports."""
    function = inspect.unwrap(make.__init__ if inspect.isclass(make) else make)  # type: ignore[misc]
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, globalns=getattr(function, "__globals__", {}), include_extras=True)["it"]
    except (NameError, AttributeError, TypeError, SyntaxError):
        return None


def _wrong_value(value: Any, annotation: Any) -> str | None:
    """Say what is wrong with a value under an annotation of choices, numbers, text, lists and dicts, or None."""
    if annotation is None or (isinstance(value, dict) and "type" in value):
        return None
    literals: list[Any] = []
    kinds: list[type] = []
    bounds: list[Within] = []
    for choice in _alternatives(annotation):
        if typing.get_origin(choice) is typing.Annotated:
            choice, *notes = typing.get_args(choice)
            bounds += [note for note in notes if isinstance(note, Within)]
        origin = typing.get_origin(choice)
        if origin is typing.Literal:
            literals += typing.get_args(choice)
        elif (origin or choice) in NAMES_OF_KINDS:
            kinds.append(origin or choice)
        else:
            return None
    if value in literals or any(_is_form_of(value, literal) for literal in literals):
        return None
    if any(_fits(value, kind) for kind in kinds):
        outside = isinstance(value, (int, float)) and any(value not in bound for bound in bounds)
        return f"wanted {bounds[0]}, got {value!r}" if outside else None
    if literals and isinstance(value, str):
        return f"{value!r} is none of {', '.join(map(repr, literals))}.{nearest(value, map(str, literals))}"
    wanted = dict.fromkeys([*map(repr, literals), *(NAMES_OF_KINDS[kind] for kind in kinds)])
    return f"wanted {' or '.join(wanted)}, got {value!r}"


def _is_form_of(value: Any, literal: Any) -> bool:
    """PEFT's "pissa_niter_[number of iters]" is a form with a number to fill in."""
    head, bracket, _ = literal.partition("[") if isinstance(literal, str) else ("", "", "")
    return bool(bracket) and isinstance(value, str) and value.startswith(head) and value[len(head) :].isdigit()


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if union else (annotation,)


def _fits(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (bool, str, type(None)):
        return isinstance(value, kind)
    return not isinstance(value, (bool, int, float, str))  # a list does for a tuple, and a node may become either

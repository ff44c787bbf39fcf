"""What a migration found, and the config it becomes: a child of a base that sets what differs from it.

Each reader (`xtuner`, `llama_factory`, `medicalgpt`) fills an `Outcome`; `config_text` writes it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medtune.config import base_configs, compose, find
from medtune.config_text import LINE_LENGTH, assignments, merge_child, parse
from medtune.errors import ConfigError

STAGES = {
    "pt": "pre-training",
    "sft": "supervised fine-tuning",
    "rm": "reward modelling",
    "dpo": "DPO",
    "kto": "KTO",
    "orpo": "ORPO",
    "simpo": "SimPO",
    "ppo": "PPO",
}


@dataclass(frozen=True)
class Code:
    """An expression that stays as the user wrote it, because only running it would tell its value."""

    text: str


@dataclass
class Outcome:
    """Settings for medtune, and what to tell the user about them."""

    origin: str
    """The framework: "XTuner"."""
    stage: str = "sft"
    settings: dict[str, Any] = field(default_factory=dict)
    """Name of PART 1 -> a plain value, or `Code`."""
    comments: dict[str, str] = field(default_factory=dict)
    """Name -> the user's comment on it, with its `#`."""
    docstring: str = ""
    head: list[str] = field(default_factory=list)
    """The user's own imports and functions, as text."""
    mapped: list[str] = field(default_factory=list)
    """What was mapped to what, where the name or the meaning changed; one line each."""
    missing: list[str] = field(default_factory=list)
    """What has no equivalent here, or is not needed; one line each."""

    def put(self, name: str, value: Any, told: str = "") -> None:
        """Set a name of PART 1, and say where it came from unless it kept its name and its value."""
        self.settings[name] = value
        if told:
            self.mapped.append(told)

    def miss(self, line: str) -> None:
        """Tell of something that has no equivalent."""
        if line not in self.missing:
            self.missing.append(line)


def require_stage(stage: str, where: str) -> None:
    """Raise ConfigError where no base for a stage is there."""
    if stage not in base_configs():
        known = ", ".join(f"{name} ({STAGES[name]})" for name in STAGES if name in base_configs())
        raise ConfigError(
            f"{where}: it trains {STAGES.get(stage, stage)}, for which there is no base here yet: {known}."
        )


def config_text(outcome: Outcome, where: str, old_name: str) -> str:
    """The text of the new config: docstring, `_base_`, the user's own code, and the settings that differ from the base.

    A setting that the base does not have is told among `outcome.missing`.

    Args:
        outcome: of a reader.
        where: the new file, for faults.
        old_name: of the old file, for the docstring.

    Raises:
        ConfigError: the stage has no base here.
    """
    require_stage(outcome.stage, old_name)
    base = compose(find(outcome.stage))
    known = assignments(base)
    lines = []
    for name in sorted(outcome.settings, key=lambda name: known[name].first_line if name in known else 0):
        value = outcome.settings[name]
        if name not in known:
            own = any(re.search(rf"\b{name}\b", text) for text in _readers(outcome, name))
            if not own:
                outcome.miss(f"{name} = {_short(value)}: the base {outcome.stage!r} has no such setting")
                continue
        elif _is_default(value, known[name].value):
            continue
        lines.append(_setting(name, value, outcome.comments.get(name, "")))
    told = re.sub(r"[^\w.\- ]", "_", old_name)
    title = f"From {told} of {outcome.origin}, by `medtune migrate`."
    docstring = "\n\n".join([title, outcome.docstring.strip()]) + "\n" if outcome.docstring.strip() else title
    quoted = docstring.replace("\\", "\\\\").replace('"""', '\\"""')
    head = [*outcome.head, ""] if outcome.head else []
    text = "\n".join([f'"""{quoted}"""', "", *head, f'_base_ = "{outcome.stage}"', "", *lines, ""])
    parse(text, where)
    merge_child(base, text, where)
    return text


def _readers(outcome: Outcome, name: str) -> list[str]:
    """The user's own code that may read a name: kept functions, and expressions of other settings."""
    return outcome.head + [v.text for k, v in outcome.settings.items() if isinstance(v, Code) and k != name]


def _is_default(value: Any, default: ast.expr) -> bool:
    try:
        found = ast.literal_eval(default)
    except ValueError:
        return False
    if isinstance(value, (list, tuple)) and isinstance(found, (list, tuple)):
        return list(value) == list(found)
    return (type(value) is type(found) and value == found) or _equal_numbers(value, found)


def _equal_numbers(a: Any, b: Any) -> bool:
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (a, b))
    return numbers and a == b


def _setting(name: str, value: Any, comment: str) -> str:
    line = f"{name} = {_wrapped(value) if isinstance(value, str) else source(value, len(name) + 3)}"
    if not comment:
        return line
    last = line.rsplit("\n", 1)[-1]
    if "\n" not in comment and len(last) + len(comment) + 2 <= LINE_LENGTH:
        return f"{line}  {comment}"
    return f"{comment}\n{line}"


def _wrapped(text: str) -> str:
    """A text in double quotes; a long one in pieces, between brackets."""
    if len(text) < LINE_LENGTH - 20:
        return source(text)
    pieces = re.findall(r".{1,90}(?:\s|$)|.{1,90}", text, re.DOTALL)
    return "\n".join(["(", *(f"    {source(piece)}" for piece in pieces), ")"])


def source(value: Any, indent: int = 0) -> str:
    """A value as a config writes it: text in double quotes, a mapping as dict(...), long lists one item a line.

    >>> print(source({"path": "a.json", "weight": 0.5}))
    dict(path="a.json", weight=0.5)
    """
    if isinstance(value, Code):
        return value.text
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # also Python
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key.isidentifier() for key in value):
            return _bracketed("dict(", [f"{key}={source(item)}" for key, item in value.items()], ")", indent)
        return _bracketed("{", [f"{source(key)}: {source(item)}" for key, item in value.items()], "}", indent)
    if isinstance(value, list):
        return _bracketed("[", [source(item) for item in value], "]", indent)
    if isinstance(value, tuple):
        return "(" + ", ".join(source(item) for item in value) + ("," if len(value) == 1 else "") + ")"
    return repr(value)


def _bracketed(head: str, items: Sequence[str], tail: str, indent: int) -> str:
    line = head + ", ".join(items) + tail
    if indent + len(line) <= LINE_LENGTH or not items:
        return line
    return "\n".join([head, *(f"    {item}," for item in items), tail])


def _short(value: Any) -> str:
    text = source(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

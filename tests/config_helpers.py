"""What the tests of configs share: a small flat config, and how to write, load and compare configs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medtune.config import split_words
from medtune.errors import ConfigError

TINY = "med_llama_tiny_lora_medqa_e3"
FLAT = """\
import json

# ---- PART 1
lr = 1e-4  # peak
prompts = [
    "a # b",
    "c",
]  # asked
note = "x"
rate = lr * 2

# ---- PART 2
model = dict(type=dict, lr=lr, rate=rate, note=note, prompts=prompts, sub=dict(items=[dict(k=1), 2]))
"""


def settings(*words: str) -> list[tuple[str, str]]:
    """Overrides as the command line gives them."""
    return split_words(words)[1]


def writer(folder: Path) -> Callable[..., str]:
    """Return a function that writes a config into a folder and returns its path as text."""

    def write(text: str, name: str = "mine.py", encoding: str = "utf-8", newline: str | None = None) -> str:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding=encoding, newline=newline) as file:
            file.write(text)
        return str(path)

    return write


def fault(call: Callable[..., Any], *arguments: Any) -> str:
    """The message of the ConfigError that a call raises."""
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    return str(caught.value)


def same(a: Any, b: Any) -> bool:
    """Equal values; callables are compared by what they are called, as a config's own are made anew by each run."""
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a is b or getattr(a, "__qualname__", a) == getattr(b, "__qualname__", b)

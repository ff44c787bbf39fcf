"""Show an encoded sample on a terminal."""

from __future__ import annotations

import os
import sys
from typing import Any

from medtune.errors import printable

GREEN, RESET = "\033[32m", "\033[0m"
MARKS = ("[[", "]]")


def how_painted() -> str:
    """What `paint_sample` does to trained tokens here."""
    return "in green" if _has_colour() else "between [[ ]]"


def _has_colour() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def paint_sample(sample: dict[str, Any], tokenizer: Any) -> str:
    """Decode a sample, its trained tokens green (or between [[ ]] where there is no colour).

    Args:
        sample: `input_ids` and `labels`, as `EncodedSamples` gives them.
        tokenizer: to decode with.
    """
    opening, closing = (GREEN, RESET) if _has_colour() else MARKS
    ids, trained = sample["input_ids"].tolist(), (sample["labels"] >= 0).tolist()
    text, start = "", 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or trained[end] != trained[start]:
            piece = printable(tokenizer.decode(ids[start:end]))
            text += f"{opening}{piece}{closing}" if trained[start] else piece
            start = end
    return text

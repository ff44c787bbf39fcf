"""One row of a data file on its way: fields, conversation, training rows with their mask, what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from medtune.data.kinds import conversations_of
from medtune.data.map_fns import NUM_HEAD_ROWS, format_name
from medtune.data.overflow import EncodeReport, check_limits, fit_samples
from medtune.data.prepare import LeftOut, Recipe
from medtune.data.records import Record, Row
from medtune.data.store import EncodedSamples, join_rows
from medtune.errors import DataError, UsageError


@dataclass(frozen=True)
class Preview:
    """What `preview_row` found."""

    row: Row
    format: str
    """Name of the map function, or of the shape it detected."""
    record: Record | LeftOut
    """A row that is not trained on is left out, with the reason."""
    parts: EncodedSamples
    """The training rows that it becomes, whole: several under a template that rewrites earlier turns, or none."""
    fate: str
    """What the overflow policy does to them, in words."""

    def as_json(self, tokenizer: Any) -> dict[str, Any]:
        """All of it for a machine, the row's text included."""
        told: dict[str, Any] = {"origin": self.row.origin, "fields": self.row.fields, "format": self.format}
        if isinstance(self.record, LeftOut):
            return {**told, "left_out": self.record.reason}
        conversations = conversations_of(self.record)
        names = ("messages",) if len(conversations) == 1 else ("chosen", "rejected")
        told |= {name: [vars(m) for m in c.messages] for name, c in zip(names, conversations, strict=True)}
        told["tools"] = list(self.record.tools)
        parts = [
            {"text": tokenizer.decode(part["input_ids"]), "input_ids": part["input_ids"].tolist(),
             "trained": (part["labels"] >= 0).tolist()}
            for part in (self.parts[i] for i in range(len(self.parts)))
        ]  # fmt: skip
        return {**told, "rows": parts, "fate": self.fate}


def preview_row(rows: Iterable[Row], number: int, recipe: Recipe, max_length: int | None, overflow: str) -> Preview:
    """Take one row through map function, template, tokenizer, mask and overflow policy, as training would.

    Args:
        rows: from `read_data`; read up to the row, and twice if it is re-iterable.
        number: of the row, from 1.
        recipe: how rows become ids.
        max_length, overflow: as for `fit_samples`.

    Raises:
        UsageError: there is no such row.
        DataError: the row is broken.
    """
    check_limits(max_length, overflow)
    head, row, last = [], None, 0
    for last, found in enumerate(islice(rows, max(number, NUM_HEAD_ROWS)), 1):
        if last <= NUM_HEAD_ROWS:
            head.append(found)
        if last == number:
            row = found
    if row is None:
        raise UsageError(f"row {number}: the data has rows 1 to {last}." if last else "the data has no rows.")
    recipe = recipe.for_rows(head)
    assert callable(recipe.map_fn)
    record = next(iter(recipe.records([row])))
    encoded = join_rows(recipe.encode([row]))
    whole, _ = fit_samples(encoded, np.arange(len(encoded)), None, "drop")
    try:
        _, report = fit_samples(encoded, np.arange(len(encoded)), max_length, overflow)
        fate = _fate(report, max_length)
    except DataError as fault:
        fate = f"stops the run: {fault}"
    return Preview(row, format_name(recipe.map_fn, row), record, whole, fate)


def _fate(report: EncodeReport, max_length: int | None) -> str:
    if report.num_samples == report.num_parts and not (report.num_truncated or report.num_split):
        if not max_length:
            return "kept whole"
        tokens = report.num_tokens
        return f"kept whole; {tokens} tokens of a pack of {max_length}" if report.num_parts == 1 else "kept whole"
    count = report.num_samples
    told = [f"{count} sample{'s' if count > 1 else ''}"] if count else []
    told += [f"cut off at {max_length} tokens"] if report.num_truncated else []
    told += [f"split at every {max_length} tokens"] if report.num_split else []
    told += [f"left out {count}: {reason}" for reason, count in report.dropped.items()]
    return "; ".join(told) or "left out"

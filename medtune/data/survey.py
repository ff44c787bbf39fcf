"""What a data set is made of: fields, format, languages, roles, turns and lengths, counted in one reading."""

from __future__ import annotations

import random
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from medtune.data import lengths
from medtune.data.map_fns import DATASET_FORMATS, MapFn, apply_map_fn
from medtune.data.records import Row, SkippedRow, shown_names
from medtune.data.words import conversations_of, language, question_of, start, text_of
from medtune.errors import DataError

CHUNK = 512
"""Records in a call of the tokenizer."""
TRIED = 50
"""Rows on which the formats are compared."""
PLACE = re.compile(r"(?::\d+|\[\d+\]|![A-Z]+\d+)$")


@dataclass
class FieldStats:
    """One field of the rows."""

    filled: int = 0
    """Rows in which it is there and not blank."""
    kinds: Counter[str] = field(default_factory=Counter)
    longest: int = 0
    """Characters of its longest text."""


@dataclass
class Group:
    """Rows of one source or language."""

    rows: int = 0
    tokens: int = 0
    trained: int = 0


@dataclass
class Survey:
    """Counts over one or more files. No text, but for the samples that were asked for."""

    num_rows: int = 0
    num_unreadable: int = 0
    num_mapped: int = 0
    """Rows that the format reads."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Reasons of sound rows that hold nothing to learn, such as a tie."""
    num_unrendered: int = 0
    """Rows of those that the template cannot render, or that have no trained token."""
    format: str = ""
    """The map function's name; "" if no format fits."""
    why: str = ""
    rivals: dict[str, float] = field(default_factory=dict)
    """Other formats that read some of the first rows: name -> share of them."""
    fields: dict[str, FieldStats] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    """Records by kind: conversation, text, preference, rated."""
    roles: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    """Answers in a record -> records."""
    with_tools: int = 0
    distinct_questions: int = 0
    lengths: array[int] = field(default_factory=lambda: array("L"))
    """Tokens of each row that could be counted."""
    trained: array[int] = field(default_factory=lambda: array("L"))
    sources: dict[str, Group] = field(default_factory=dict)
    languages: dict[str, Group] = field(default_factory=dict)
    samples: list[Row] = field(default_factory=list)

    @property
    def num_misfits(self) -> int:
        """Rows that no format, or not that of the file, reads."""
        return self.num_rows - self.num_mapped - self.skipped.total()

    def sums(self) -> dict[str, int]:
        """Rows, turns, tokens and trained tokens in all."""
        turns = sum(number * count for number, count in self.turns.items())
        return {"rows": self.num_rows, "turns": turns, "tokens": sum(self.lengths), "trained_tokens": sum(self.trained)}


def source_of(origin: str) -> str:
    """The file, sheet or data set of an origin.

    >>> source_of("train.jsonl:12"), source_of("a.xlsx!Drug QA!A57"), source_of("hub/name[train]:3")
    ('train.jsonl', 'a.xlsx!Drug QA', 'hub/name[train]')
    """
    return PLACE.sub("", origin)


class Surveyor:
    """Surveys rows, file by file, into one `Survey`.

    Args:
        map_fn: a format's name or a function; None detects it, anew for each file.
        count: from `lengths.token_counter`; None counts no tokens.
        num_samples: rows to keep, drawn by seed.
        seed: of that draw.
    """

    def __init__(
        self,
        map_fn: str | MapFn | None = None,
        count: lengths.Counter | None = None,
        num_samples: int = 0,
        seed: int = 0,
    ) -> None:
        self.told = Survey()
        self._spec, self._count, self._num_samples = map_fn, count, num_samples
        self._rng = random.Random(seed)
        self._questions: set[int] = set()

    def read(self, rows: Any) -> Iterator[Row]:
        """Count the rows of one file; yields each, for a progress bar.

        Raises:
            DataError: the file is no data file, or there is no format of that name.
        """
        unreadable: list[DataError] = []
        first: list[Row] = []
        waiting: list[tuple[Row, Any]] = []
        map_fn, reader = start(rows.each(unreadable.append), self._spec)
        for row in reader:
            if not first and map_fn is not None:
                self.told.format = getattr(map_fn, "__name__", type(map_fn).__name__).removesuffix("_map_fn")
                self.told.why = "it was named" if self._spec is not None else _reason(row)
            if len(first) < TRIED:
                first.append(row)
            self._see_row(row)
            waiting.append((row, self._record(row, map_fn)))
            if len(waiting) == CHUNK:
                self._measure(waiting, map_fn)
                waiting.clear()
            yield row
        self._measure(waiting, map_fn)
        self.told.num_unreadable += len(unreadable)
        self.told.distinct_questions = len(self._questions)
        if first and not self.told.rivals:
            self.told.rivals = rivals(first, self.told.format)

    def _see_row(self, row: Row) -> None:
        told = self.told
        told.num_rows += 1
        if len(told.samples) < self._num_samples:
            told.samples.append(row)
        elif self._num_samples and (place := self._rng.randrange(told.num_rows)) < self._num_samples:
            told.samples[place] = row
        if not isinstance(row.fields, Mapping):
            return
        for key, value in row.fields.items():
            stats = told.fields.setdefault(str(key), FieldStats())
            stats.kinds["null" if value is None else type(value).__name__] += 1
            if isinstance(value, str):
                stats.longest = max(stats.longest, len(value))
            stats.filled += bool(value.strip()) if isinstance(value, str) else value not in (None, [], {}, ())

    def _record(self, row: Row, map_fn: MapFn | None) -> Any:
        try:
            record = apply_map_fn(map_fn, row) if map_fn else None
        except SkippedRow as skipped:
            self.told.skipped[skipped.reason] += 1
            return None
        except DataError:
            return None
        if record is None:
            return None
        told = self.told
        told.num_mapped += 1
        conversation = conversations_of(record)[0]
        told.roles.update(message.role for message in conversation.messages)
        told.turns[sum(message.role == "assistant" for message in conversation.messages)] += 1
        told.kinds[_kind(record)] += 1
        told.with_tools += bool(record.tools)
        if question := question_of(record):
            self._questions.add(hash(question))
        return record

    def _measure(self, waiting: list[tuple[Row, Any]], map_fn: MapFn | None) -> None:
        told = self.told
        records = [record for _, record in waiting if record is not None]
        counted = iter(self._count(records) if self._count else [None] * len(records))
        for row, record in waiting:
            length = next(counted) if record is not None else None
            groups = (
                told.sources.setdefault(source_of(row.origin), Group()),
                told.languages.setdefault(language(text_of(row, map_fn).whole), Group()),
            )
            for group in groups:
                group.rows += 1
                group.tokens += length.tokens if length else 0
                group.trained += length.trained if length else 0
            if length:
                told.lengths.append(length.tokens)
                told.trained.append(length.trained)
            elif record is not None and self._count:
                told.num_unrendered += 1


def _kind(record: Any) -> str:
    if len(conversations_of(record)) == 2:
        return "preference"
    if record.label is not None:
        return "rated"
    return "conversation" if any(m.role == "user" for m in record.messages) else "text"


def _reason(row: Row) -> str:
    """The keys that told the format; without them if one looks like data."""
    keys = ", ".join(shown_names(row.fields)) if isinstance(row.fields, Mapping) else ""
    return f"the first row has {keys}" if 0 < len(keys) < 120 else "the shape of the first row fits"


def rivals(rows: list[Row], chosen: str) -> dict[str, float]:
    """Other formats that could read the rows: name -> share of them, the best first."""
    found: dict[str, float] = {}
    for name, map_fn in DATASET_FORMATS.items():
        if name == chosen:
            continue
        share = sum(_reads(map_fn, row) for row in rows) / len(rows)
        if share:
            found[name] = share
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _reads(map_fn: MapFn, row: Row) -> bool:
    try:
        apply_map_fn(map_fn, row)
    except DataError:
        return False
    return True

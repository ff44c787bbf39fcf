"""The check of a whole data set, row by row: what is wrong, where, and which rows are good."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from medtune.data import lengths
from medtune.data.defects import Finding, check_fields, check_record, classify
from medtune.data.map_fns import MapFn, apply_map_fn, resolve_map_fn
from medtune.data.records import Row, SkippedRow
from medtune.data.words import conversations_of, digest, start
from medtune.errors import DataError, UsageError

CHUNK = 512
"""Rows in a call of the tokenizer."""


@dataclass
class Checkup:
    """Counts over the rows checked so far; rows in = good rows + bad rows."""

    num_rows: int = 0
    num_bad: int = 0
    """Rows with a fault."""
    num_noted: int = 0
    """Rows with a note and no fault."""
    defects: Counter[str] = field(default_factory=Counter)
    map_fn: str = ""

    def add(self, findings: list[Finding]) -> None:
        """Count one row."""
        self.num_rows += 1
        self.defects.update({finding.defect: 1 for finding in findings})
        if any(finding.is_fault for finding in findings):
            self.num_bad += 1
        elif findings:
            self.num_noted += 1


class _Seen(NamedTuple):
    """A row on its way through the check."""

    row: Row | None
    record: Any
    findings: list[Finding]


@dataclass
class Doctor:
    """Checks rows; one doctor may see several files, and finds what repeats among them.

    Attributes:
        map_fn: a format's name or a function; None detects it, anew for each file.
        count: from `lengths.token_counter`, for `max_length`.
        max_length: most tokens of a record; None does not count them.
    """

    map_fn: str | MapFn | None = None
    count: lengths.Counter | None = None
    max_length: int | None = None
    told: Checkup = field(default_factory=Checkup)
    _digests: dict[bytes, str] = field(default_factory=dict, repr=False)
    _kind: str = field(default="", repr=False)

    def check(self, rows: Any) -> Iterator[tuple[Row | None, list[Finding]]]:
        """Yield each row of a file with what is wrong with it; None for a row that cannot be read.

        Memory holds 16 bytes and an origin for each row, to find duplicates, and the texts of 512 rows.

        Args:
            rows: `medtune.data.readers.Rows`.

        Raises:
            DataError: the file is not a data file at all, or has no rows.
        """
        num_rows = 0
        waiting: list[_Seen] = []
        for seen in self._each(rows):
            num_rows += 1
            waiting.append(seen)
            if len(waiting) == CHUNK:
                yield from self._finished(waiting)
                waiting.clear()
        yield from self._finished(waiting)
        if not num_rows:
            raise DataError("the data set has no rows.")

    def _each(self, rows: Any) -> Iterator[_Seen]:
        unreadable: list[DataError] = []
        num_rows = 0
        self._kind = ""
        try:
            map_fn, reader = start(rows.each(unreadable.append), self.map_fn)
            self.told.map_fn = getattr(map_fn, "__name__", "") or self.told.map_fn
            for row in reader:
                yield from map(_refused, unreadable)
                unreadable.clear()
                num_rows += 1
                yield self._seen(row, map_fn)
        except DataError as fault:  # the rest of the file cannot be read
            if not num_rows:
                raise
            unreadable.append(fault)
        yield from map(_refused, unreadable)

    def _seen(self, row: Row, map_fn: MapFn | None) -> _Seen:
        try:
            record = apply_map_fn(map_fn or resolve_map_fn(self.map_fn, row), row)
        except SkippedRow as fault:
            return _Seen(row, None, [Finding("skipped", row.origin, "", fault.reason)])
        except DataError as fault:
            return _Seen(row, None, [classify(fault, row.origin), *check_fields(row)])
        found = list(check_record(row, record))
        kind = _kind(record)
        self._kind = self._kind or kind
        if kind != self._kind:
            found.append(Finding("misfit", row.origin, "", f"a {kind} in a file that begins with a {self._kind}"))
        text = "\n".join(m.content for c in conversations_of(record) for m in c.messages)
        key = digest(text)
        if first := self._digests.get(key):
            found.append(Finding("duplicate", row.origin, "", f"the same words as {first}"))
        else:
            self._digests[key] = row.origin
        return _Seen(row, record, found)

    def _finished(self, waiting: list[_Seen]) -> Iterator[tuple[Row | None, list[Finding]]]:
        """Count the tokens of a chunk, if they matter, and the rows."""
        if self.count is not None and self.max_length is not None:
            readable = [seen for seen in waiting if seen.record is not None]
            for seen, length in zip(readable, self.count([seen.record for seen in readable]), strict=True):
                if length is not None and length.tokens > self.max_length:
                    told = f"{length.tokens} tokens, more than {self.max_length}"
                    seen.findings.append(Finding("too_long", seen.record.origin, "", told))
        for seen in waiting:
            self.told.add(seen.findings)
            yield seen.row, seen.findings


def _kind(record: Any) -> str:
    """What a stage of training takes the record for; a file holds one of these."""
    if len(conversations_of(record)) == 2:
        return "pair of answers"
    return "conversation" if record.label is None else "labelled answer"


def _refused(fault: DataError) -> _Seen:
    origin, _, told = str(fault).partition(": ")
    return _Seen(None, None, [Finding("unreadable", origin, "", told)])


def parse_limit(text: str, option: str) -> Callable[[int, int], bool]:
    """Read a limit, "10" or "0.5%", as a test of (rows found, rows): True while they are not too many.

    Raises:
        UsageError: it is neither; names the option.

    >>> parse_limit("1%", "--max-bad-rows")(2, 100), parse_limit("2", "--max-bad-rows")(2, 100)
    (False, True)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)%|(\d+)", text.strip())
    if found and found[2]:
        return lambda rows, _: rows <= int(found[2])
    if found and float(found[1]) <= 100:
        return lambda rows, total: 100 * rows <= float(found[1]) * total
    raise UsageError(f"{option} {text!r}: wanted a number of rows, 10, or a share of them, 0.5%.")

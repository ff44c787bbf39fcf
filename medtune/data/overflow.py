"""What becomes of rows that are too long, and the count of every row and token that is left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from medtune.data.store import EncodedRows, EncodedSamples
from medtune.errors import ConfigError, DataError, MedtuneError, nearest

Overflow = Literal["drop", "truncate", "split", "error"]
OVERFLOW_POLICIES = ("drop", "truncate", "split", "error")
TOO_LONG = "longer than max_length"
UNTRAINED = "no trained token"
UNTRAINED_PIECE = "split piece without a trained token"
CUT_OFF = "cut off at max_length"
ORIGINS_KEPT = 5


@dataclass
class EncodeReport:
    """What encoding did to the rows. Tokens are counted over the samples that were kept, where nothing else is said.

    Nothing is lost without a name: `check` holds that rows and tokens in are rows and tokens out and dropped.
    """

    num_rows: int = 0
    num_parts: int = 0
    """Training rows that they became: more than `num_rows` under a template that rewrites earlier turns."""
    num_samples: int = 0
    num_tokens: int = 0
    num_trained_tokens: int = 0
    num_tokens_read: int = 0
    """Tokens of all rows, before the overflow policy."""
    longest: int = 0
    """Tokens of the longest row, before the overflow policy."""
    num_truncated: int = 0
    """Rows cut at max_length."""
    num_split: int = 0
    """Rows cut into several samples."""
    num_split_kept: int = 0
    """Of those, rows with a sample."""
    num_split_samples: int = 0
    """Samples that they became."""
    num_repeated: int = 0
    """Tokens that end one piece of a row and stand, untrained, before the next: of all pieces, left out or not."""
    num_special_in_text: int = 0
    """Rows whose text holds a control token's text; it was encoded as ordinary text."""
    num_unfilled: int = 0
    """Rows whose text leaves a placeholder open."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason to count, of rows; of pieces of rows for `UNTRAINED_PIECE`."""
    dropped_tokens: dict[str, int] = field(default_factory=dict)
    """Reason to tokens, those cut off included."""
    dropped_origins: dict[str, list[str]] = field(default_factory=dict)
    """Reason to the first few origins."""

    def check(self) -> None:
        """Raise MedtuneError, a fault of ours, if a row or a token went missing without a reason or came twice."""
        rows_dropped = sum(count for reason, count in self.dropped.items() if reason != UNTRAINED_PIECE)
        whole = self.num_samples - self.num_split_samples
        rows = whole + self.num_split_kept + rows_dropped
        tokens = self.num_tokens + sum(self.dropped_tokens.values()) - self.num_repeated
        if tokens != self.num_tokens_read or rows != self.num_parts:
            raise MedtuneError(
                f"encoding lost count: {self.num_tokens_read} tokens in, {tokens} out or dropped; {self.num_parts} "
                f"rows in, {rows} out or dropped. This is a fault of medtune."
            )


def check_limits(max_length: int | None, overflow: str) -> None:
    """Raise ConfigError for an unknown policy or an impossible `max_length`."""
    if overflow not in OVERFLOW_POLICIES:
        known = ", ".join(OVERFLOW_POLICIES)
        raise ConfigError(f"overflow={overflow!r} is unknown.{nearest(overflow, OVERFLOW_POLICIES)} Known are {known}.")
    if max_length is not None and max_length < 2:
        raise ConfigError(f"max_length={max_length}: a sample needs at least 2 tokens, one to predict the other from.")


def fit_samples(
    rows: EncodedRows, chosen: np.ndarray, max_length: int | None, overflow: str = "drop"
) -> tuple[EncodedSamples, EncodeReport]:
    """Cut the samples out of chosen rows.

    Args:
        rows: whole.
        chosen: (n,) indices of rows, ascending.
        max_length: most tokens a sample may have; None for no limit.
        overflow: what becomes of longer rows. "drop" leaves them out; "truncate" cuts off the end, adding no end
            token; "split" cuts them into samples of `max_length`, the later ones without their prompt: each begins
            with the last token of the one before, so that every trained token is predicted once; "error" stops.
            Whatever has no trained token left is left out too, and everything is counted in the report.

    Raises:
        ConfigError: an unknown policy or an impossible `max_length`.
        DataError: a row that is too long under "error".
    """
    check_limits(max_length, overflow)
    per_row = rows.num_parts[chosen]
    row = np.repeat(chosen, per_row)
    parts = np.repeat(rows.first_parts[chosen] - (np.cumsum(per_row) - per_row), per_row) + np.arange(per_row.sum())
    lengths = np.asarray(rows.lengths[parts])
    report = EncodeReport(
        num_rows=len(chosen),
        num_parts=len(parts),
        num_tokens_read=int(lengths.sum()),
        longest=int(lengths.max(initial=0)),
        num_special_in_text=int(rows.special[chosen].sum()),
        num_unfilled=int(rows.unfilled[chosen].sum()),
    )
    limit = max_length or max(report.longest, 1)
    long = lengths > limit
    if overflow == "error" and long.any():
        i = int(long.argmax())
        raise DataError(
            f"{rows.origin(int(row[i]))}: {lengths[i]} tokens, and max_length is {limit}; raise max_length, or set "
            "overflow to 'drop', 'truncate' or 'split'."
        )
    cuts = _Cuts(rows, row, parts, lengths, limit, long, overflow, report)
    samples = cuts.samples()
    report.num_samples = len(samples)
    report.num_tokens = int(samples.lengths.sum())
    report.num_trained_tokens = int(samples.num_trained.sum())
    report.check()
    return samples, report


@dataclass(frozen=True)
class _Cuts:
    """Parts of rows, of which some are longer than the limit."""

    rows: EncodedRows
    row: np.ndarray
    parts: np.ndarray
    lengths: np.ndarray
    limit: int
    long: np.ndarray
    overflow: str
    report: EncodeReport

    def samples(self) -> EncodedSamples:
        """The samples, and in the report what is cut and left out."""
        report, limit = self.report, self.limit
        pieces = np.ones(len(self.parts), np.int64)
        if self.overflow == "drop":
            pieces[self.long] = 0
        elif self.overflow == "truncate":
            report.num_truncated = int(self.long.sum())
            self._lose(CUT_OFF, int((self.lengths - limit)[self.long].sum()))
        else:
            report.num_split = int(self.long.sum())
            pieces[self.long] = -(-(self.lengths[self.long] - 1) // (limit - 1))
            report.num_repeated = int((pieces - 1).sum())
        of = np.repeat(np.arange(len(self.parts)), pieces)
        begin = (np.arange(len(of)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * (limit - 1)
        lengths = np.minimum(self.lengths[of] - begin, limit)
        starts = self.rows.starts[self.parts[of]] + begin
        num_trained = np.array(self.rows.num_trained[self.parts[of]])
        for i in np.flatnonzero(self.long[of]).tolist():
            num_trained[i] = int(self.rows.trained[starts[i] + 1 : starts[i] + lengths[i]].sum())
        kept = num_trained > 0
        self._count(pieces, np.bincount(of[kept], minlength=len(pieces)), lengths, of, kept)
        return EncodedSamples(self.rows, self.row[of[kept]], starts[kept], lengths[kept], num_trained[kept])

    def _count(
        self, pieces: np.ndarray, num_kept: np.ndarray, lengths: np.ndarray, of: np.ndarray, kept: np.ndarray
    ) -> None:
        """Count what is left out: parts without a piece, parts without a trained one, and single pieces."""
        if self.overflow == "split":
            self.report.num_split_samples = int(num_kept[self.long].sum())
            self.report.num_split_kept = int((num_kept[self.long] > 0).sum())
        reasons = np.zeros(len(pieces), np.int64)
        reasons[num_kept < pieces] = 1
        reasons[(num_kept == 0) & (pieces > 0)] = 2
        reasons[pieces == 0] = 3
        for code, reason in ((1, UNTRAINED_PIECE), (2, UNTRAINED), (3, TOO_LONG)):
            found = np.flatnonzero(reasons == code)
            if not len(found):
                continue
            each = pieces[found] - num_kept[found] if code == 1 else np.ones(len(found), np.int64)
            self.report.dropped[reason] = int(each.sum())
            first = np.repeat(found[:ORIGINS_KEPT], each[:ORIGINS_KEPT])[:ORIGINS_KEPT]
            self.report.dropped_origins[reason] = [self.rows.origin(int(self.row[i])) for i in first]
            lost = self.lengths[found].sum() if code == 3 else lengths[~kept & (reasons[of] == code)].sum()
            self._lose(reason, int(lost))

    def _lose(self, reason: str, tokens: int) -> None:
        if tokens:
            self.report.dropped_tokens[reason] = self.report.dropped_tokens.get(reason, 0) + tokens

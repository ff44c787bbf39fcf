"""What a stage learns from a row: its answers, two answers to compare, or an answer that is labelled good or bad.

Of a `Preference` come two samples, chosen and rejected, neighbours to the end. Of a labelled conversation comes one;
KTO also wants each prompt with the answer of another row, to see how far the model has moved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from medtune.data.overflow import ORIGINS_KEPT, TOO_LONG, UNTRAINED
from medtune.data.records import Conversation, Message, Preference, Record, SkippedRow
from medtune.data.store import EncodedRows
from medtune.errors import ConfigError, DataError

Kind = Literal["answers", "pairs", "labels"]
SAME = "both answers are the same"


def check_kind(kind: str, train_on: str = "answers", overflow: str = "drop") -> None:
    """Raise ConfigError for settings that mean nothing for pairs or labelled answers."""
    if kind != "answers" and train_on != "answers":
        raise ConfigError(f"train_on={train_on!r}: preference data is trained on its answers; use 'answers'.")
    if kind != "answers" and overflow == "split":
        raise ConfigError("overflow='split': an answer that is compared as a whole cannot be split; use 'drop'.")


def of_kind(record: Record, kind: Kind) -> Record:
    """The record as a stage of pairs or of labelled answers learns from it, its answers marked as trained.

    Raises:
        SkippedRow: the two answers are the same.
        DataError: the record is of another kind; says what to do.
    """
    if kind == "pairs":
        if not isinstance(record, Preference):
            got = "one answer" if record.label is None else "an answer labelled good or bad, which KTO trains on,"
            raise DataError(f"{record.origin}: {got} where a chosen and a rejected one are wanted. See preference.md.")
        prompt, chosen, rejected = (
            tuple(replace(m, trained=False) for m in record.prompt),
            record.chosen,
            record.rejected,
        )
        chosen, rejected = (tuple(replace(m, trained=m.role == "assistant") for m in a) for a in (chosen, rejected))
        if chosen == rejected:
            raise SkippedRow(SAME, record.origin)
        return replace(record, prompt=prompt, chosen=chosen, rejected=rejected)
    if not isinstance(record, Conversation) or record.label is None:
        got = "two answers to compare, which DPO trains on," if isinstance(record, Preference) else "no 'label'"
        raise DataError(f"{record.origin}: {got} where an answer labelled true or false is wanted. See preference.md.")
    last = len(record.messages) - 1
    messages = tuple(replace(m, trained=i == last and m.role == "assistant") for i, m in enumerate(record.messages))
    if not messages[-1].trained:
        raise DataError(f"{record.origin}: messages: the last one is no answer, so there is nothing the label is of.")
    return replace(record, messages=messages)


def conversations_of(record: Record) -> tuple[Conversation, ...]:
    """The conversation, or the two of a pair, chosen first."""
    return record.conversations() if isinstance(record, Preference) else (record,)


def with_system(record: Record, system: str) -> Record:
    """The record with a system text, if it has none of its own."""
    first = Message("system", system)
    if isinstance(record, Preference):
        return record if record.prompt[0].role == "system" else replace(record, prompt=(first, *record.prompt))
    return record if record.messages[0].role == "system" else replace(record, messages=(first, *record.messages))


# ---------------------------------------------------------------- encoded


def whole_pairs(
    rows: EncodedRows, chosen: np.ndarray, max_length: int, overflow: str
) -> tuple[np.ndarray, Counter[str], dict[str, list[str]]]:
    """Of chosen rows of two parts, those whose both parts can be trained on.

    Args:
        rows: whole; each of the chosen ones has two parts.
        chosen: (n,) indices of rows.
        max_length: tokens of either sample.
        overflow: "drop" leaves a pair out if one of its samples is too long; "truncate", if nothing of an answer is
            left. "error" is left to `fit_samples`.

    Returns:
        The indices that stay, the others counted by reason, and the first places of each reason.
    """
    first = rows.first_parts[chosen]
    parts = np.stack([first, first + 1], axis=1)  # (n, 2)
    long = rows.lengths[parts] > max_length
    num_trained = np.array(rows.num_trained[parts])
    for row, side in np.argwhere(long).tolist():
        start = rows.starts[parts[row, side]]
        num_trained[row, side] = rows.trained[start + 1 : start + max_length].sum()
    too_long = long.any(1) & (overflow == "drop")
    untrained = ~too_long & (num_trained == 0).any(1) & ~(long.any(1) & (overflow == "error"))
    dropped: Counter[str] = Counter()
    origins = {}
    for reason, found in ((TOO_LONG, chosen[too_long]), (UNTRAINED, chosen[untrained])):
        if len(found):
            dropped[reason] = len(found)
            origins[reason] = [rows.origin(row) for row in found[:ORIGINS_KEPT].tolist()]
    return chosen[~too_long & ~untrained], dropped, origins


def mismatched_partners(questions: np.ndarray, seed: int) -> np.ndarray:
    """For each of n prompts, another sample, whose answer is to another question wherever that can be.

    Args:
        questions: (n, bytes) uint8 digests, equal for the same question.
        seed: of the draw.

    Returns:
        (n,) int64 indices; each sample is the partner of one.

    Raises:
        DataError: fewer than 2 samples.
    """
    num = len(questions)
    if num < 2:
        raise DataError("KTO compares with answers to other prompts: wanted 2 rows or more, got 1.")
    _, group = np.unique(np.ascontiguousarray(questions), axis=0, return_inverse=True)
    rng = np.random.default_rng(seed)
    rank = rng.permutation(int(group.max()) + 1)
    order = np.lexsort((rng.random(num), rank[group.ravel()]))  # samples of a question side by side
    shift = min(int(np.bincount(group.ravel()).max()), num - 1)
    partners = np.empty(num, np.int64)
    partners[order] = np.roll(order, -shift)
    return partners


def with_answer_of(sample: Mapping[str, Any], other: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    """The prompt of a sample and the answer of another one, cut off at `max_length`. Samples as in `EncodedSamples`."""
    ids, labels = (
        np.concatenate([sample[name][: _prompt_length(sample)], other[name][_prompt_length(other) :]])[:max_length]
        for name in ("input_ids", "labels")
    )
    return {"input_ids": ids, "labels": labels, "origin": sample["origin"]}


def _prompt_length(sample: Mapping[str, Any]) -> int:
    return int((np.asarray(sample["labels"]) >= 0).argmax())

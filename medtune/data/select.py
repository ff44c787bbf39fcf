"""Which rows of a prepared data set are used, from their index alone: blanks, the validation split, the draw."""

from __future__ import annotations

from collections import Counter

import numpy as np

from medtune.data.prepare import EMPTY_ANSWER
from medtune.data.split import split_groups
from medtune.data.store import EncodedRows
from medtune.errors import DataError


def select_rows(
    rows: EncodedRows, drop_empty: bool, val_ratio: float, part: str, max_rows: int | None, seed: int
) -> tuple[np.ndarray, Counter[str], int]:
    """Choose the rows of one part of a data set.

    Args:
        rows: all of them.
        drop_empty: leave out rows whose answer is empty; else they are a fault.
        val_ratio: share of the rows set aside for validation, by question.
        part: "train" or "val", the side of that split; "all" does not split.
        max_rows: most rows, drawn by seed.
        seed: of the split and of the draw.

    Returns:
        (n,) int64 indices in the order of the rows, the others counted by reason, and the number of surplus rows of
        repeated questions.

    Raises:
        DataError: an answer is empty, without `drop_empty`.
    """
    dropped = _left_out(rows, drop_empty)
    chosen = np.flatnonzero(rows.reason_lengths == 0)
    num_repeated = 0
    if val_ratio and part != "all":
        groups = _by_first_appearance(np.asarray(rows.questions[chosen]))
        num_repeated = len(chosen) - int(groups.max(initial=-1) + 1)
        in_part = split_groups(groups, 1.0 - val_ratio, seed)
        in_part = in_part if part == "train" else ~in_part
        reason = "set aside for validation" if part == "train" else "used for training"
        dropped[reason] += len(chosen) - int(in_part.sum())
        chosen = chosen[in_part]
    if max_rows is not None and max_rows < len(chosen):
        dropped["not drawn (max_dataset_length)"] += len(chosen) - max_rows
        chosen = chosen[np.sort(np.random.default_rng(seed).permutation(len(chosen))[:max_rows])]
    return chosen, dropped, num_repeated


def _left_out(rows: EncodedRows, drop_empty: bool) -> Counter[str]:
    """Rows that were not encoded, by reason."""
    found = np.flatnonzero(rows.reason_lengths)
    reasons = [rows.reason(row) for row in found.tolist()]
    dropped = Counter(reasons)
    if dropped[EMPTY_ANSWER] and not drop_empty:
        first = int(found[reasons.index(EMPTY_ANSWER)])
        raise DataError(
            f"{rows.origin(first)}: the answer is empty ({dropped[EMPTY_ANSWER]} of {len(rows)} rows). "
            "Fix the rows, or set drop_empty=True to leave them out."
        )
    return +dropped


def _by_first_appearance(digests: np.ndarray) -> np.ndarray:
    """(n,) int64 number of each row's digest, (n, bytes) uint8, counted by first appearance."""
    if not len(digests):
        return np.zeros(0, np.int64)
    keys = np.ascontiguousarray(digests).view(f"V{digests.shape[1]}")[:, 0]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]

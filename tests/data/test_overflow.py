"""Cutting rows to length: every row and token is a sample's or has a reason, whatever the lengths and the policy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.data.overflow import UNTRAINED_PIECE, fit_samples
from medtune.data.store import ARRAYS, EncodedRows
from medtune.errors import MedtuneError

LIMIT = 8
masks = st.lists(st.lists(st.booleans(), max_size=30), max_size=20)


def rows_of(parts: list[list[bool]], num_parts: list[int] | None = None) -> EncodedRows:
    """Rows of the parts with these masks; a token's id is its place."""
    parts = [[False, *part[1:]] if part else part for part in parts]
    num_parts = [1] * len(parts) if num_parts is None else num_parts
    count = len(num_parts)
    arrays = {name: np.zeros((count, *axes), dtype) for name, (dtype, axes) in ARRAYS.items()}
    lengths = np.array([len(part) for part in parts], np.int64)
    names = [f"f:{i}".encode() for i in range(count)]
    arrays |= {
        "input_ids": np.arange(lengths.sum(), dtype=np.int32),
        "trained": np.array([mark for part in parts for mark in part], np.bool_),
        "lengths": lengths,
        "num_trained": np.array([sum(part) for part in parts], np.int64),
        "num_parts": np.array(num_parts, np.int64),
        "origins": np.frombuffer(b"".join(names), np.uint8),
        "origin_lengths": np.array([len(name) for name in names], np.int64),
        "reasons": np.empty(0, np.uint8),
    }
    rows = EncodedRows(**arrays)
    assert rows.whole()
    return rows


def slowly(parts: list[list[bool]], overflow: str) -> list[tuple[int, int, int]]:
    """(start, length, trained tokens) of each sample, one part after another."""
    samples, start = [], 0
    for part in parts:
        limit = max(len(part), 1) if len(part) <= LIMIT else LIMIT
        begins = (
            range(0, len(part) - 1, limit - 1) if overflow == "split" and len(part) > 1 else range(min(len(part), 1))
        )
        for begin in begins if len(part) <= LIMIT or overflow != "drop" else ():
            marks = [False, *part[begin + 1 : begin + limit]]
            if any(marks):
                samples.append((start + begin, len(marks), sum(marks)))
        start += len(part)
    return samples


@given(masks, st.sampled_from(["drop", "truncate", "split"]))
def test_samples_and_counts_are_those_of_a_plain_loop(parts, overflow):
    samples, report = fit_samples(rows_of(parts), np.arange(len(parts)), LIMIT, overflow)
    found = list(zip(samples.starts.tolist(), samples.lengths.tolist(), samples.num_trained.tolist(), strict=True))
    assert found == slowly(parts, overflow)
    assert report.num_tokens_read == sum(map(len, parts))
    assert report.num_tokens_read + report.num_repeated == report.num_tokens + sum(report.dropped_tokens.values())
    assert [int((samples[i]["labels"] >= 0).sum()) for i in range(len(samples))] == [count for *_, count in found]
    assert samples.trained.sum() == report.num_trained_tokens
    whole = len(set(samples.row.tolist()))
    assert len(parts) == whole + sum(n for reason, n in report.dropped.items() if reason != UNTRAINED_PIECE)


@given(st.lists(st.integers(1, 60), max_size=8), st.integers(2, 9))
def test_split_trains_every_token_but_a_rows_first_once_and_no_other_piece_predicts_it(lengths, limit):
    """Fault: pieces laid edge to edge, whose first tokens nothing predicts; or an overlap that is trained twice."""
    rows = rows_of([[True] * length for length in lengths])
    samples, report = fit_samples(rows, np.arange(len(lengths)), limit, "split")
    predicted = [int(i) for s in range(len(samples)) for i in samples[s]["labels"] if i >= 0]
    assert sorted(predicted) == [i for i in range(sum(lengths)) if i not in {0, *np.cumsum(lengths).tolist()}]
    assert samples.lengths.max(initial=0) <= limit
    assert report.num_trained_tokens == len(predicted)


@given(st.lists(st.integers(0, 3), max_size=8), st.data())
def test_rows_of_several_parts_are_chosen_whole(num_parts, data):
    parts = [[False, True, True]] * sum(num_parts)
    chosen = np.array(sorted(data.draw(st.sets(st.sampled_from(range(len(num_parts)))))) if num_parts else [], np.int64)
    samples, report = fit_samples(rows_of(parts, num_parts), chosen, LIMIT)
    assert samples.row.tolist() == [i for i in chosen for _ in range(num_parts[i])]
    assert samples.origins == [f"f:{i}" for i in samples.row]
    assert (report.num_rows, report.num_parts) == (len(chosen), len(samples))


@pytest.mark.parametrize("loss", [{"num_tokens": 1}, {"num_samples": 1}, {"num_tokens_read": 8}])
@pytest.mark.parametrize("overflow", ["drop", "truncate", "split"])
def test_a_row_or_token_that_goes_missing_is_a_fault(loss, overflow):
    parts = [[False, True], [False] * 3, [False, *[True] * 11]]
    _, report = fit_samples(rows_of(parts), np.arange(3), LIMIT, overflow)
    report.check()
    for name, count in loss.items():
        setattr(report, name, getattr(report, name) + count)
    with pytest.raises(MedtuneError, match="lost count"):
        report.check()

"""Rows that say the same: exactly, after folding, or nearly, by MinHash and locality-sensitive hashing.

Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman, Ullman, "Mining of Massive
Datasets", chapter 3. The signatures and the index are those of the library rensa.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from medtune.data.words import HAN, KANA, digest, words
from medtune.errors import UsageError

NUM_HASHES = 128
"""Of a signature. The estimate of a similarity s is off by sqrt(s (1 - s) / 128): 0.035 at 0.8."""
RECALL = 0.99
"""Chance that the index finds a pair that is exactly at the threshold."""
HAN_SHINGLE = 5
LATIN_SHINGLE = 3
HAN_WORD = re.compile(f"[{HAN}{KANA}]")


class Twin(NamedTuple):
    """A row that says what an earlier one says."""

    origin: str
    like: str
    """Origin of the earlier row, which stays."""
    kind: str
    """"exact" or "near"."""
    similarity: float
    """Estimated share of shingles in common, 0 to 1; 1.0 of an exact twin."""


def shingles(text: str) -> list[str]:
    """Runs of 5 characters of a text that is mostly Chinese, of 3 words of another; a shorter text is one.

    >>> shingles("Take one tablet daily."), shingles("每日一次，口服")
    (['take one tablet', 'one tablet daily'], ['每日一次口', '日一次口服'])
    """
    found = words(text)
    han = 2 * sum(1 for word in found if HAN_WORD.match(word)) > len(found)
    size, between = (HAN_SHINGLE, "") if han else (LATIN_SHINGLE, " ")
    if len(found) <= size:
        return [between.join(found) or text.strip()]
    return [between.join(found[i : i + size]) for i in range(len(found) - size + 1)]


def num_bands(threshold: float) -> int:
    """Bands of a signature: the fewest that find a pair at the threshold with a chance of `RECALL`.

    A pair of similarity s shares one of b bands of r hashes with the chance 1 - (1 - s^r)^b.
    """
    choices = [b for b in (1, 2, 4, 8, 16, 32, 64, 128) if 1 - (1 - threshold ** (NUM_HASHES // b)) ** b >= RECALL]
    return choices[0] if choices else NUM_HASHES


def find_twins(rows: Iterable[tuple[str, str]], threshold: float | None = 0.8, seed: int = 0) -> Iterator[Twin | None]:
    """For each row, in order: the earlier row it repeats, or None for a row that stays.

    A row is compared with those that stay, never with one left out, so a chain of small changes is not one duplicate.
    Memory is about 1 KiB for each row that stays, whatever its length; 100 bytes without near duplicates.

    Args:
        rows: (origin, text) pairs, read once.
        threshold: share of shingles in common, above 0 and at most 1, that makes a near duplicate; None looks for
            exact ones alone.
        seed: of the hashes. The same rows and seed give the same answer.

    Raises:
        UsageError: the threshold is out of range.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise UsageError(f"the threshold must be above 0 and at most 1, got {threshold}.")
    return _find_twins(rows, threshold, seed)


def _find_twins(rows: Iterable[tuple[str, str]], threshold: float | None, seed: int) -> Iterator[Twin | None]:
    origins: list[str] = []
    exact: dict[bytes, int] = {}
    near = _NearIndex(threshold, seed) if threshold is not None else None
    for origin, text in rows:
        index = exact.setdefault(digest(text), len(origins))
        if index < len(origins):
            yield Twin(origin, origins[index], "exact", 1.0)
            continue
        if near is not None and (found := near.find_or_add(len(origins), text)):
            like, similarity = found
            exact[digest(text)] = like  # a repeat of this row repeats the one that stays
            yield Twin(origin, origins[like], "near", similarity)
            continue
        origins.append(origin)
        yield None


class _NearIndex:
    """The rows that stay, by signature."""

    def __init__(self, threshold: float, seed: int) -> None:
        from rensa import RMinHash, RMinHashLSH

        self._new = lambda: RMinHash(num_perm=NUM_HASHES, seed=seed)
        self._index = RMinHashLSH(threshold=threshold, num_perm=NUM_HASHES, num_bands=num_bands(threshold))
        self._threshold = threshold
        self._kept: dict[int, Any] = {}

    def find_or_add(self, key: int, text: str) -> tuple[int, float] | None:
        """The likest row that stays, the earliest of equals, and how like it is; or None, and the row is added."""
        signature = self._new()
        signature.update(shingles(text))
        candidates = ((signature.jaccard(self._kept[found]), -found) for found in self._index.query(signature))
        similarity, negative = max(candidates, default=(0.0, 0))
        if similarity >= self._threshold:
            return -negative, similarity
        self._index.insert(key, signature)
        self._kept[key] = signature
        return None

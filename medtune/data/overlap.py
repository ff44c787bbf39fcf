"""How much of a test set stands in the training data: the same questions, and runs of 13 words in common.

Runs of 13 words are the measure of Brown et al. 2020 (GPT-3, arXiv 2005.14165, appendix C); like theirs, a run that
many training rows hold is boilerplate and not counted. A Chinese character counts as a word.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from medtune.data.words import Text, digest, words

RUN = 13
COMMON = 10
"""A run of words in more training rows than this is boilerplate."""
_ODD = 0x9E3779B97F4A7C15
_POWERS = np.array([pow(_ODD, power, 1 << 64) for power in range(RUN)], dtype=np.uint64)


class Shared(NamedTuple):
    """A test row that shares something with the training data."""

    origin: str
    like: str
    """Origin of the first training row that shares it."""
    kind: str
    """"exact": the same question. "run": some 13 words in a row."""
    covered: float
    """Share of the test row's words that lie in such runs, 0 to 1; 1.0 where the question is the same."""


@dataclass
class Overlap:
    """What one test set shares with the training data."""

    num_rows: int = 0
    num_short: int = 0
    """Rows of fewer than 13 words: only their question can be compared."""
    num_boilerplate: int = 0
    """Runs left out because more than 10 training rows hold them."""
    shared: list[Shared] = field(default_factory=list)

    def count(self, kind: str | None = None, covered: float = 0.0) -> int:
        """Rows that share something: of one kind, or covered at least so far."""
        return sum(1 for row in self.shared if kind in (None, row.kind) and row.covered >= covered)


@functools.lru_cache(maxsize=1 << 18)
def _hash_word(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def runs(text: str) -> tuple[np.ndarray, int]:
    """Hashes of a text's runs of 13 words, (n - 12,) uint64, empty if it has fewer; and n, its number of words."""
    found = words(text)
    if len(found) < RUN:
        return np.empty(0, dtype=np.uint64), len(found)
    hashes = np.fromiter(map(_hash_word, found), dtype=np.uint64, count=len(found))
    windows = np.lib.stride_tricks.sliding_window_view(hashes, RUN)
    return (windows * _POWERS).sum(axis=1, dtype=np.uint64), len(found)


class _TestRow(NamedTuple):
    """What is kept of a row of a test set."""

    origin: str
    question: bytes
    runs: np.ndarray
    num_words: int


class _TestIndex:
    """All runs and questions of the test sets; the training rows are streamed past it."""

    def __init__(self, tests: Iterable[Iterable[Text]]) -> None:
        self.tests = [[_TestRow(t.row.origin, digest(t.question), *runs(t.whole)) for t in test] for test in tests]
        every = [row.runs for test in self.tests for row in test]
        self.known = np.unique(np.concatenate(every)) if every else np.empty(0, dtype=np.uint64)
        self.num_holders = np.zeros(len(self.known), dtype=np.int64)
        self.first_holder = np.full(len(self.known), -1, dtype=np.int64)
        self.questions = {row.question: "" for test in self.tests for row in test}
        self.origins: list[str] = []
        """Of the training rows that are the first to hold something."""

    def see(self, train: Text) -> None:
        """Mark what a training row shares."""
        key = digest(train.question)
        if self.questions.get(key) == "":
            self.questions[key] = train.row.origin
        hashes, _ = runs(train.whole)
        if not len(hashes) or not len(self.known):
            return
        places = self.places(np.unique(hashes))
        places = places[places >= 0]
        self.num_holders[places] += 1
        new = places[self.first_holder[places] < 0]
        if len(new):
            self.first_holder[new] = len(self.origins)
            self.origins.append(train.row.origin)

    def places(self, hashes: np.ndarray) -> np.ndarray:
        """Places of the runs in `known`; -1 of one that is not there."""
        places = np.searchsorted(self.known, hashes)
        places[places == len(self.known)] = 0
        return np.where(self.known[places] == hashes, places, -1)

    def report(self, test: list[_TestRow]) -> Overlap:
        """What one test set shares."""
        told = Overlap(num_rows=len(test), num_short=sum(not len(row.runs) for row in test))
        common: set[int] = set()
        for row in test:
            places = self.places(row.runs) if len(row.runs) else np.empty(0, dtype=np.int64)
            common.update(places[self.num_holders[places] > COMMON].tolist())
            if found := self._shared(row, places):
                told.shared.append(found)
        told.num_boilerplate = len(common)
        return told

    def _shared(self, row: _TestRow, places: np.ndarray) -> Shared | None:
        if like := self.questions[row.question]:
            return Shared(row.origin, like, "exact", 1.0)
        counts = self.num_holders[places]
        held = np.flatnonzero((counts > 0) & (counts <= COMMON))
        if not len(held):
            return None
        covered = np.zeros(row.num_words, dtype=bool)
        for start in held:
            covered[start : start + RUN] = True
        return Shared(row.origin, self.origins[self.first_holder[places[held[0]]]], "run", float(covered.mean()))


def find_overlap(train: Iterable[Text], tests: Iterable[Iterable[Text]]) -> list[Overlap]:
    """Compare test sets with the training data. Both are read once; of the tests 24 bytes a word are kept.

    Args:
        train: texts of the training rows.
        tests: texts of each test set.

    Returns:
        one `Overlap` for each test set, in order; its rows in the order of the test set.
    """
    index = _TestIndex(tests)
    for text in train:
        index.see(text)
    return [index.report(test) for test in index.tests]

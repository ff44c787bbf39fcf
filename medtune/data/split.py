"""Split data into train and test by question, so that a repeated question never stands on both sides."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medtune.data.records import Conversation
from medtune.errors import UsageError

SPACE_BY_HAN = re.compile("(?<=[\u3040-\u9fff]) | (?=[\u3040-\u9fff])")  # Chinese and kana words have no space between


class Split(NamedTuple):
    """The two parts, each in the order of the input, and the number of surplus rows: rows minus distinct questions."""

    train: list[Conversation]
    test: list[Conversation]
    repeated: int


def parse_ratio(text: str) -> float:
    """Read "7:3" or "0.7" as the share of the first part.

    Raises:
        UsageError: another form, or a part of nothing.

    >>> parse_ratio("7:3"), parse_ratio("0.9")
    (0.7, 0.9)
    """
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?::\s*(\d+(?:\.\d+)?)\s*)?", text)
    if parts:
        first, second = float(parts[1]), float(parts[2]) if parts[2] else 1 - float(parts[1])
        if first > 0 and second > 0:
            return first / (first + second)
    raise UsageError(f"the ratio {text!r} is neither two numbers, 7:3, nor a share between 0 and 1, 0.7.")


def normalise(text: str) -> str:
    """Fold what does not make another question: width and compatibility forms (NFKC), case, spaces, punctuation.

    >>> normalise("What is  ASPIRIN?"), normalise("布洛芬，怎么吃？")
    ('what is aspirin', '布洛芬怎么吃')
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = " ".join(folded.translate(_SPACES).split())
    return (words if words.isascii() else SPACE_BY_HAN.sub("", words)) or text


class _Spaces(dict[int, str]):
    """A table for str.translate that makes spaces of punctuation, separators and control characters."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = " " if unicodedata.category(char)[0] in "PZC" else char
        return self[code]


_SPACES = _Spaces()


def question_of(conversation: Conversation) -> str:
    """First message of the user; of a text without one, the text."""
    asked = next((m for m in conversation.messages if m.role == "user"), conversation.messages[-1])
    return f"{asked.role} {asked.content}"


def split_by_question(conversations: Sequence[Conversation], ratio: float, seed: int) -> Split:
    """Split conversations so that all of one question, after `normalise`, go to the same side.

    Args:
        conversations: told apart by `question_of`.
        ratio: share that goes to train, 0 to 1. Questions are shuffled and taken as long as they fit, so the share is
            met to within the size of one group, and exactly where enough questions stand alone.
        seed: the same seed gives the same split.

    Raises:
        UsageError: the ratio is outside 0 to 1.
    """
    questions: dict[str, int] = {}
    groups = [questions.setdefault(normalise(question_of(c)), len(questions)) for c in conversations]
    chosen = split_groups(np.array(groups, np.int64), ratio, seed)
    train = [conversation for conversation, is_train in zip(conversations, chosen, strict=True) if is_train]
    test = [conversation for conversation, is_train in zip(conversations, chosen, strict=True) if not is_train]
    return Split(train, test, len(conversations) - len(questions))


def split_groups(groups: np.ndarray, ratio: float, seed: int) -> np.ndarray:
    """Split rows so that each group goes to one side whole.

    Args:
        groups: (n,) the group of each row, numbered from 0 by first appearance.
        ratio, seed: as for `split_by_question`.

    Returns: (n,) bool, True for the training side.

    Raises:
        UsageError: the ratio is outside 0 to 1.
    """
    if not 0 <= ratio <= 1:
        raise UsageError(f"the share of the training part must be between 0 and 1, got {ratio}.")
    sizes = np.bincount(groups)
    order = list(range(len(sizes)))
    random.Random(seed).shuffle(order)
    room = round(len(groups) * ratio)
    chosen = np.zeros(len(sizes), np.bool_)
    left: list[tuple[int, int]] = []
    for group, size in zip(order, sizes[order].tolist(), strict=True):
        if size <= room:
            chosen[group] = True
            room -= size
        else:
            left.append((size, group))
    if len(left) > 1:
        size, group = min(left, key=lambda item: item[0])
        if size - room < room:  # one group too many is nearer
            chosen[group] = True
    return chosen[groups]


def split_by_field(groups: Sequence[str], ratio: float, seed: int, strata: Sequence[str] | None = None) -> list[bool]:
    """Split rows so that rows of one group go to the same side, and each stratum is split by the same ratio.

    Args:
        groups: of each row what may not straddle: a patient, a document, a question.
        ratio, seed: as for `split_by_question`; met within each stratum to within the size of one group.
        strata: of each row what both sides shall have alike: a department, a label. A group whose rows lie in several
            belongs to that of its first row. None is one stratum.

    Returns:
        True of each row for the training side.

    Raises:
        UsageError: the ratio is outside 0 to 1.
    """
    stratum_of: dict[str, str] = {}
    for index, group in enumerate(groups):
        stratum_of.setdefault(group, strata[index] if strata else "")
    rows_of: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        rows_of.setdefault(stratum_of[group], []).append(index)
    is_train = [False] * len(groups)
    for rows in rows_of.values():
        numbers: dict[str, int] = {}
        numbered = np.array([numbers.setdefault(groups[row], len(numbers)) for row in rows], np.int64)
        for row, chosen in zip(rows, split_groups(numbered, ratio, seed).tolist(), strict=True):
            is_train[row] = chosen
    return is_train

"""Split data into train and test by question, so that a repeated question never stands on both sides."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

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
    words = "".join(" " if unicodedata.category(char)[0] in "PZC" else char for char in folded).split()
    return SPACE_BY_HAN.sub("", " ".join(words)) or text


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
    if not 0 <= ratio <= 1:
        raise UsageError(f"the share of the training part must be between 0 and 1, got {ratio}.")
    groups: dict[str, list[int]] = {}
    for index, conversation in enumerate(conversations):
        groups.setdefault(normalise(question_of(conversation)), []).append(index)
    order = list(groups.values())
    random.Random(seed).shuffle(order)

    room = round(len(conversations) * ratio)
    chosen: set[int] = set()
    left: list[list[int]] = []
    for group in order:
        if len(group) <= room:
            chosen.update(group)
            room -= len(group)
        else:
            left.append(group)
    if len(left) > 1 and len(smallest := min(left, key=len)) - room < room:  # one group too many is nearer
        chosen.update(smallest)
    train = [conversation for index, conversation in enumerate(conversations) if index in chosen]
    test = [conversation for index, conversation in enumerate(conversations) if index not in chosen]
    return Split(train, test, len(conversations) - len(groups))

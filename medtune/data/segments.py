"""What a template renders: pieces of text, each tokenised on its own, with the trained parts marked out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Segment(NamedTuple):
    """A piece of a rendered conversation. Each is tokenised on its own, so its ids never depend on what follows."""

    text: str
    trained: bool
    """True if the loss is taken on all its tokens."""
    spans: tuple[tuple[int, int], ...] = ()
    """Of a piece that is not trained as a whole: the (start, end) characters whose tokens are all the same. A trained
    question is one, within its prompt: it is no piece of its own, so that the prompt keeps the ids that chat sends."""


def cut_segment(segment: Segment, mark: str) -> list[Segment]:
    """The segment cut wherever `mark` stands, without the marks and without empty pieces."""
    if mark not in segment.text:
        return [segment]
    pieces, start = [], 0
    for text in segment.text.split(mark):
        end = start + len(text)
        spans = [(max(a, start) - start, min(b, end) - start) for a, b in segment.spans if a < end and b > start]
        if text:
            pieces.append(Segment(text, segment.trained, tuple(spans)))
        start = end + len(mark)
    return pieces


def in_spans(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Whether each token, by its (start, end) characters, holds a character of a span."""
    return [any(start < b and end > a for a, b in spans) for start, end in offsets]

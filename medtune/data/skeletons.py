"""Skeletons of rendered rows: what a chat template writes around the contents of every conversation of one shape.

A conversation of probes is rendered once for each shape, with great care, and cut at the probes. A real conversation is
then put into the places, and one rendering shows whether it is what the template writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from medtune.data.records import Message
from medtune.data.segments import Segment

Tools = Sequence[Mapping[str, Any]]
Shape = tuple[tuple[str, bool, bool, int], ...]
TOOL_PROBE = {
    "type": "function",
    "function": {"name": "probe_tool", "description": "", "parameters": {"type": "object", "properties": {}}},
}


class Skeleton(NamedTuple):
    """A row of probes, cut at the probes: what stands around the contents in every row of one shape."""

    first: int
    pieces: list[tuple[tuple[str | int, ...], int]]
    """Literal texts and indices of messages, and the index of the message that the piece is the answer of, or -1."""
    upto: int
    extra: str
    """What the row has besides what the template writes: an end token of ours."""

    def fill(self, messages: Sequence[Message], contents: Sequence[str]) -> list[Segment]:
        """The row's segments with these contents in their places."""
        return [_filled(parts, index, messages, contents, self.first) for parts, index in self.pieces]


def shape_of(messages: Sequence[Message], tools: Tools) -> Shape:
    """What two conversations have in common that a template tells apart by more than their texts."""
    shape = [(m.role, bool(m.content), bool(m.reasoning), len(m.tool_calls)) for m in messages]
    return (*shape, ("tools", bool(tools), False, 0))


def probe_of(message: Message, i: int) -> Message:
    """A message of the same shape, of texts that are found again."""
    return replace(
        message,
        content=f"probe{i:04d}content" if message.content else "",
        reasoning=f"probe{i:04d}thought" if message.reasoning else "",
        tool_calls=tuple(
            {"name": f"probe{i:04d}call{k}", "arguments": {"a": f"probe{i:04d}argument{k}"}}
            for k in range(len(message.tool_calls))
        ),
    )


def what_is_told(probes: Sequence[Message], tools: Tools) -> list[tuple[str, list[str]]]:
    """Names of the parts of a conversation, and the texts that have to be found for each."""
    told = [("the tool definitions", [tool["function"]["name"] for tool in tools])]
    for probe in probes:
        role = {"assistant": "an answer", "tool": "a tool's result"}.get(probe.role, f"the {probe.role} message")
        beside = " that stands beside tool calls" if probe.tool_calls else ""
        told.append((role + beside, [probe.content]))
        calls = [text for call in probe.tool_calls for text in (call["name"], call["arguments"]["a"])]
        told.append(("the tool calls", calls))
    return told


def cut_at_probes(text: str, probes: Sequence[Message]) -> tuple[str | int, ...]:
    """The text as literals and, in place of each probe, its index."""
    parts = re.split(r"probe(\d{4})content", text)
    cut: list[str | int] = [int(part) if k % 2 else part for k, part in enumerate(parts)]
    return tuple(part for part in cut if part != "")


def _filled(
    parts: tuple[str | int, ...], index: int, messages: Sequence[Message], contents: Sequence[str], first: int
) -> Segment:
    text, spans = "", []
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        start = len(text)
        text += contents[part]
        if part != index and part >= first and messages[part].trained and contents[part]:
            spans.append((start, len(text)))
    return Segment(text, index >= 0 and messages[index].trained, tuple(spans))

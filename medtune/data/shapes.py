"""Records written as rows of the usual shapes, and the proof that they come back as they were."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from medtune.data.map_fns import apply_map_fn, resolve_map_fn
from medtune.data.records import Conversation, Message, Preference, Record, Row
from medtune.data.structured import to_turns
from medtune.errors import DataError, UsageError, nearest

PAIR = "a pair of answers"
TOOLS = "tools"
REASONING = "reasoning"
SWITCH = "an answer that is not trained on"
LABEL = "a label (KTO)"
OPEN = "a question without an answer"
DIALOGUE = "a dialogue"
"""What a record may hold and a shape may have no place for."""


class Shape(NamedTuple):
    """How a record is written, and what it may hold."""

    write: Callable[[Any], dict[str, Any]]
    holds: frozenset[str]


def to_shape(record: Record, shape: str) -> dict[str, Any]:
    """Write a record as a row of a shape.

    Args:
        record: from `to_record`.
        shape: a name of `SHAPES`.

    Raises:
        UsageError: unknown shape.
        DataError: the shape has no place for something; the line names it, and the shapes that have. A row that
            would not be read back as the same record is refused too.
    """
    known = named_shape(shape)
    if lost := _held(record) - known.holds:
        others = [
            name for name, other in SHAPES.items() if _held(record) <= other.holds and _wanted(record, name) is None
        ]
        use = f" Use --to {' or '.join(others)}." if others else ""
        raise DataError(f"{record.origin}: the shape {shape!r} would lose {', '.join(sorted(lost))}.{use}")
    if reason := _wanted(record, shape):
        raise DataError(f"{record.origin}: the shape {shape!r} wants {reason}.")
    fields = known.write(record)
    if _read_back(Row(fields, record.origin)) != record:
        raise DataError(
            f"{record.origin}: the row would not come back from the shape {shape!r} as it is: it has an empty text, or "
            "a marker of a format in its text. Use --to messages."
        )
    return fields


def _read_back(row: Row) -> Record | None:
    try:
        return apply_map_fn(resolve_map_fn(None, row), row)
    except DataError:
        return None


def answers_only(record: Record, shape: str) -> Record:
    """The record without the question it may end on, if the shape has a place for one: it is no fault there."""
    if isinstance(record, Preference) or OPEN not in named_shape(shape).holds:
        return record
    last = max(i for i, message in enumerate(record.messages) if message.role == "assistant")
    return replace(record, messages=record.messages[: last + 1])


def named_shape(name: str) -> Shape:
    """The shape of a name.

    Raises:
        UsageError: unknown name.
    """
    if name not in SHAPES:
        raise UsageError(f"unknown shape {name!r}.{nearest(name, SHAPES)} Known are {', '.join(SHAPES)}.")
    return SHAPES[name]


def _held(record: Record) -> set[str]:
    """What a record holds beside questions and answers."""
    messages = _all_messages(record)
    held = {
        PAIR: isinstance(record, Preference),
        TOOLS: bool(record.tools) or any(m.tool_calls or m.role == "tool" for m in messages),
        REASONING: any(m.reasoning for m in messages),
        SWITCH: any(m.role == "assistant" and not m.trained for m in _to_learn(record)),
        LABEL: isinstance(record, Conversation) and record.label is not None,
        OPEN: isinstance(record, Conversation) and messages[-1].role != "assistant",
        DIALOGUE: any(message.role != "assistant" for message in messages),
    }
    return {name for name, there in held.items() if there}


def _all_messages(record: Record) -> tuple[Message, ...]:
    if isinstance(record, Preference):
        return (*record.prompt, *record.chosen, *record.rejected)
    return record.messages


def _to_learn(record: Record) -> tuple[Message, ...]:
    return (*record.chosen, *record.rejected) if isinstance(record, Preference) else record.messages


def _wanted(record: Record, shape: str) -> str | None:
    """What a shape cannot do without and the record has not."""
    if shape == "preference" and not isinstance(record, Preference):
        return "a better and a worse answer; the row has one answer"
    if shape == "kto" and LABEL not in _held(record):
        return "a label, good or bad; the row has none"
    return None


def _to_messages(record: Conversation) -> dict[str, Any]:
    label = {} if record.label is None else {"label": record.label}
    return {"messages": list(_openai(record.messages)), **_tools(record), **label}


def _to_preference(record: Preference) -> dict[str, Any]:
    prompt = [replace(message, trained=True) for message in record.prompt]  # never trained: no switch to write
    parts = {"prompt": prompt, "chosen": record.chosen, "rejected": record.rejected}
    return {**{name: list(_openai(messages)) for name, messages in parts.items()}, **_tools(record)}


def _openai(messages: Iterable[Message]) -> Iterator[dict[str, Any]]:
    """OpenAI's messages; calls get the ids that tie a tool's result to them, in order."""
    number = 0
    waiting: list[str] = []
    for message in messages:
        written: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning:
            written["reasoning_content"] = message.reasoning
        if message.tool_calls:
            waiting = [f"call_{number + i}" for i in range(len(message.tool_calls))]
            number += len(waiting)
            written["tool_calls"] = [
                {
                    "id": name,
                    "type": "function",
                    "function": {"name": call["name"], "arguments": _json(call["arguments"])},
                }
                for name, call in zip(waiting, message.tool_calls, strict=True)
            ]
        if message.role == "tool" and waiting:
            written["tool_call_id"] = waiting.pop(0)
        if message.role == "assistant" and not message.trained:
            written["weight"] = 0
        yield written


def _tools(record: Record) -> dict[str, Any]:
    return {"tools": list(record.tools)} if record.tools else {}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


SHAREGPT_NAMES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def _to_sharegpt(record: Conversation) -> dict[str, Any]:
    turns = []
    for message in record.messages:
        if message.content or not message.tool_calls:
            turns.append({"from": SHAREGPT_NAMES[message.role], "value": message.content})
        if message.tool_calls:
            calls = message.tool_calls[0] if len(message.tool_calls) == 1 else list(message.tool_calls)
            turns.append({"from": "function_call", "value": _json(calls)})
    tools = {"tools": _json(list(record.tools))} if record.tools else {}
    return {"conversations": turns, **tools, **({} if record.label is None else {"label": record.label})}


def _to_alpaca(record: Conversation) -> dict[str, Any]:
    first, *turns = to_turns(record)["conversation"]
    system = first["system"]
    *history, last = [(turn["input"], turn["output"]) for turn in (first, *turns)]
    fields: dict[str, Any] = {"instruction": last[0], "input": "", "output": last[1]}
    if history:
        fields["history"] = [list(turn) for turn in history]
    if system:
        fields["system"] = system
    return fields


def _to_text(record: Conversation) -> dict[str, Any]:
    return {"text": record.messages[0].content}


SHAPES: Mapping[str, Shape] = {
    "conversation": Shape(to_turns, frozenset({SWITCH, DIALOGUE})),
    "messages": Shape(_to_messages, frozenset({TOOLS, REASONING, SWITCH, LABEL, OPEN, DIALOGUE})),
    "sharegpt": Shape(_to_sharegpt, frozenset({TOOLS, LABEL, OPEN, DIALOGUE})),
    "alpaca": Shape(_to_alpaca, frozenset({DIALOGUE})),
    "preference": Shape(_to_preference, frozenset({PAIR, TOOLS, REASONING, SWITCH, DIALOGUE})),
    "kto": Shape(_to_messages, frozenset({TOOLS, REASONING, SWITCH, LABEL, OPEN, DIALOGUE})),
    "text": Shape(_to_text, frozenset()),
}
"""Name -> how it is written, and what it has a place for."""

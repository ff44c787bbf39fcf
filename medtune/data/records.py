"""The two records of the data layer: a `Row` as it was read, and a `Conversation` as it is trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from medtune.errors import DataError

ROLES = ("system", "user", "assistant")
LIKE_DATA = re.compile(r"\d{5}|.{41}|[。！？；?!;]$", re.DOTALL)


class Row(NamedTuple):
    """One row of a data file."""

    fields: Any
    """The row itself: nearly always a dict; a str for plain text."""
    origin: str
    """Where it stands: "train.jsonl:12", "MedQA2019.xlsx!DrugQA!A57", "hub/name[train]:12"."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    trained: bool = False
    """True if the loss is taken on this message; only an assistant's can be."""


@dataclass(frozen=True)
class Conversation:
    """A validated conversation: optional system message, then user and assistant turns."""

    messages: tuple[Message, ...]
    origin: str = ""


def shown_names(names: Iterable[Any]) -> list[str]:
    """Columns or keys as messages may show them: none if one looks like data, as in a table without a header row."""
    texts = [str(name) for name in names]
    return [] if any(map(LIKE_DATA.search, texts)) else texts


def to_conversation(raw: Any, origin: str = "") -> Conversation:
    """Turn what a map function returned into a `Conversation`; the one door into the data layer.

    Args:
        raw: a `Conversation`; XTuner's `{"conversation": [{"system", "input", "output"}, ...]}`, where `input` may be
            empty (pre-training style text) and `output_with_loss` switches a turn's loss; or OpenAI's
            `{"messages": [{"role", "content"}, ...]}`, where `loss` or `weight` switches it.
        origin: where the row stands, for error messages.

    Raises:
        DataError: the row has another shape, a wrong role order, or text that is not a string. Messages never quote
            the row's text: it may be a patient's.
    """
    if isinstance(raw, Conversation):
        messages = raw.messages
    elif isinstance(raw, Mapping) and isinstance(raw.get("conversation"), list):
        messages = _from_turns(raw["conversation"], origin)
    elif isinstance(raw, Mapping) and isinstance(raw.get("messages"), list):
        messages = _from_messages(raw["messages"], origin)
    else:
        got = f"the keys {sorted(map(str, raw))}" if isinstance(raw, Mapping) else f"a {type(raw).__name__}"
        raise DataError(f"{origin}: a map function must return 'conversation' or 'messages', got {got}.")
    _check_order(messages, origin)
    return Conversation(messages, origin)


def _text(value: Any, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: wanted text, got a {type(value).__name__}.")
    return value


def _from_turns(turns: list[Any], origin: str) -> tuple[Message, ...]:
    messages: list[Message] = []
    for i, turn in enumerate(turns):
        where = f"{origin}: conversation[{i}]"
        if not isinstance(turn, Mapping):
            raise DataError(f"{where}: wanted an object with 'input' and 'output', got a {type(turn).__name__}.")
        missing = [key for key in ("input", "output") if key not in turn]
        if missing:
            raise DataError(f"{where}: no {missing[0]!r}; it has {sorted(map(str, turn))}.")
        if i == 0 and (system := _text(turn.get("system"), f"{where}.system")):
            messages.append(Message("system", system))
        if question := _text(turn["input"], f"{where}.input"):
            messages.append(Message("user", question))
        answer = _text(turn["output"], f"{where}.output")
        messages.append(Message("assistant", answer, bool(turn.get("output_with_loss", True))))
    return tuple(messages)


def _from_messages(raw_messages: list[Any], origin: str) -> tuple[Message, ...]:
    messages = []
    for i, raw in enumerate(raw_messages):
        where = f"{origin}: messages[{i}]"
        if not isinstance(raw, Mapping) or "role" not in raw or "content" not in raw:
            raise DataError(f"{where}: wanted an object with 'role' and 'content'.")
        role = raw["role"]
        if role not in ROLES:
            raise DataError(f"{where}: unknown role {role!r}; known are {', '.join(ROLES)}.")
        trained = role == "assistant" and bool(raw.get("loss", raw.get("weight", True)))
        messages.append(Message(role, _text(raw["content"], f"{where}.content"), trained))
    return tuple(messages)


def _check_order(messages: tuple[Message, ...], origin: str) -> None:
    """System at most once and first; no two messages of one role in a row; at least one assistant message."""
    if not any(m.role == "assistant" for m in messages):
        raise DataError(f"{origin}: the conversation has no assistant message to learn from.")
    for i, message in enumerate(messages):
        if message.role == "system" and i > 0:
            raise DataError(f"{origin}: messages[{i}]: a system message must be the first.")
        if i > 0 and message.role == messages[i - 1].role:
            raise DataError(f"{origin}: messages[{i}]: two {message.role} messages in a row.")
        if message.trained and message.role != "assistant":
            raise DataError(f"{origin}: messages[{i}]: only an assistant message can be trained on.")

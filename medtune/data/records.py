"""The records of the data layer: a `Row` as it was read, and the `Conversation` or `Preference` that is made of it.

`to_record` is the one door: what a map function returned is validated there, once, and never again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from medtune.errors import ConfigError, DataError

ROLES = ("system", "user", "assistant", "tool")
TRAIN_ON = ("answers", "last", "all")
LIKE_DATA = re.compile(r"\d{5}|.{41}|[。！？；?!;]$", re.DOTALL)
ROLE_NAME = re.compile(r"[A-Za-z_-]{1,20}")
OFF = ("false", "0", "0.0", "no")


class SkippedRow(DataError):
    """A sound row that holds nothing to learn, for example a tie. Whoever counts rows leaves it out by `reason`."""

    def __init__(self, reason: str, origin: str = "") -> None:
        super().__init__(f"{origin}: {reason}." if origin else f"{reason}.")
        self.reason = reason


class Row(NamedTuple):
    """One row of a data file."""

    fields: Any
    """The row itself: nearly always a dict; a list of utterances for a dialogue that is a file of its own."""
    origin: str
    """Where it stands: "train.jsonl:12", "MedQA2019.xlsx!DrugQA!A57", "hub/name[train]:12"."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    trained: bool = False
    """True if the loss is taken on this message; of other roles than the assistant only by `mark_trained`."""
    tool_calls: tuple[dict[str, Any], ...] = ()
    """Calls an assistant makes: `{"name": str, "arguments": dict}`, in order."""
    reasoning: str = ""
    """What a thinking model says before its answer."""


@dataclass(frozen=True)
class Conversation:
    """A validated conversation: optional system message, then user, assistant and tool turns."""

    messages: tuple[Message, ...]
    origin: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    """The tools it may call: OpenAI's `{"type": "function", "function": {"name", "description", "parameters"}}`."""
    label: bool | None = None
    """Of a KTO row: whether its answer is a good one."""


@dataclass(frozen=True)
class Preference:
    """A validated prompt with a better and a worse answer."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    origin: str = ""
    tools: tuple[dict[str, Any], ...] = ()

    def conversations(self) -> tuple[Conversation, Conversation]:
        """The whole conversations, chosen first; the loss stands on the answers alone."""
        good, bad = (
            Conversation((*self.prompt, *answer), self.origin, self.tools) for answer in (self.chosen, self.rejected)
        )
        return good, bad


Record = Conversation | Preference


def shown_names(names: Iterable[Any]) -> list[str]:
    """Columns or keys as messages may show them: none if one looks like data, as in a table without a header row."""
    texts = [str(name) for name in names]
    return [] if any(map(LIKE_DATA.search, texts)) else texts


def to_record(raw: Any, origin: str = "") -> Record:
    """Turn what a map function returned into a validated record; the one door into the data layer.

    Args:
        raw: a record; XTuner's `{"conversation": [{"system", "input", "output"}, ...]}`, where `input` may be empty
            (pre-training style text) and `output_with_loss` switches a turn's loss; OpenAI's
            `{"messages": [{"role", "content", "tool_calls"?, "reasoning"?}, ...], "tools"?, "label"?}`, where `loss`
            or `weight` switches a message's loss; or a pair, `{"prompt", "chosen", "rejected", "tools"?}`, three lists
            of such messages.
        origin: where the row stands, for error messages.

    Raises:
        DataError: the row has another shape, a wrong role order, or text that is not a string. Messages never quote
            the row's text: it may be a patient's.
    """
    if isinstance(raw, Preference):
        return _checked(replace(raw, origin=origin or raw.origin))
    if isinstance(raw, Conversation):
        return _checked(replace(raw, origin=origin or raw.origin))
    if not isinstance(raw, Mapping):
        raise DataError(f"{origin}: a map function must return a dict, got a {type(raw).__name__}.")
    tools = _tools(raw.get("tools"), f"{origin}: tools")
    if isinstance(raw.get("conversation"), list):
        return _checked(Conversation(_from_turns(raw["conversation"], origin), origin))
    if isinstance(raw.get("messages"), list):
        label = raw.get("label")
        if label is not None and not isinstance(label, bool):
            raise DataError(f"{origin}: label: wanted true or false, got a {type(label).__name__}.")
        return _checked(Conversation(_from_messages(raw["messages"], f"{origin}: messages"), origin, tools, label))
    if all(isinstance(raw.get(part), list) for part in ("prompt", "chosen", "rejected")):
        prompt, chosen, rejected = (
            _from_messages(raw[part], f"{origin}: {part}") for part in ("prompt", "chosen", "rejected")
        )
        prompt = tuple(replace(message, trained=False) for message in prompt)
        return _checked(Preference(prompt, chosen, rejected, origin, tools))
    got = ", ".join(map(repr, shown_names(raw))) or "others"
    raise DataError(
        f"{origin}: a map function must return 'conversation', 'messages', or 'prompt', 'chosen' and 'rejected' as "
        f"lists of messages; got the keys {got}."
    )


def to_conversation(raw: Any, origin: str = "") -> Conversation:
    """`to_record` where only a conversation to learn from will do.

    Raises:
        DataError: as `to_record`; also of a preference, and of an answer labelled good or bad: both hold answers that
            nobody wants to teach. The line says how to train on the good ones.
    """
    record = to_record(raw, origin)
    if isinstance(record, Conversation) and record.label is None:
        return record
    got = "two answers to one prompt" if isinstance(record, Preference) else "an answer labelled good or bad (KTO)"
    raise DataError(
        f"{record.origin}: {got}, where a conversation is wanted. To train on the good answers alone, name the map "
        "function 'chosen': dataset_map_fn='chosen' or --map-fn chosen."
    )


def mark_trained(conversation: Conversation, train_on: Literal["answers", "last", "all"] = "answers") -> Conversation:
    """Say which messages the loss is taken on.

    Args:
        conversation: from `to_record`; an answer it switched off stays off.
        train_on: "answers", as the row says: every answer that it did not switch off; "last", of these the last
            answer alone; "all", prompts and tool results too.

    Raises:
        ConfigError: another word.
    """
    messages = conversation.messages
    if train_on == "answers":
        return conversation
    if train_on == "last":
        last = max((i for i, message in enumerate(messages) if message.role == "assistant"), default=-1)
        marked = [replace(message, trained=message.trained and i == last) for i, message in enumerate(messages)]
    elif train_on == "all":
        marked = [replace(message, trained=message.trained or message.role != "assistant") for message in messages]
    else:
        raise ConfigError(f"train_on={train_on!r} is unknown; known are {', '.join(TRAIN_ON)}.")
    return replace(conversation, messages=tuple(marked))


def parsed_json(value: Any, where: str) -> Any:
    """Value of a field that may hold JSON as text.

    Raises:
        DataError: the text is not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: wanted JSON, got text that is none. Fix the row.") from None


def _text(value: Any, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: wanted text, got a {type(value).__name__}.")
    return value


def _switched_on(switch: Any) -> bool:
    """True unless a loss switch (true, false, a weight, or one of these as text) turns the loss off; None is on."""
    return switch is None or str(switch).strip().lower() not in OFF


def _from_turns(turns: list[Any], origin: str) -> tuple[Message, ...]:
    messages: list[Message] = []
    for i, turn in enumerate(turns):
        where = f"{origin}: conversation[{i}]"
        if not isinstance(turn, Mapping):
            raise DataError(f"{where}: wanted an object with 'input' and 'output', got a {type(turn).__name__}.")
        missing = [key for key in ("input", "output") if key not in turn]
        if missing:
            raise DataError(f"{where}: no {missing[0]!r}; it has {sorted(shown_names(turn))}.")
        if i == 0 and (system := _text(turn.get("system"), f"{where}.system")):
            messages.append(Message("system", system))
        if question := _text(turn["input"], f"{where}.input"):
            messages.append(Message("user", question))
        answer = _text(turn["output"], f"{where}.output")
        messages.append(Message("assistant", answer, _switched_on(turn.get("output_with_loss"))))
    return tuple(messages)


def _from_messages(raw_messages: list[Any], where: str) -> tuple[Message, ...]:
    return tuple(_message(raw, f"{where}[{i}]") for i, raw in enumerate(raw_messages))


def _message(raw: Any, where: str) -> Message:
    if isinstance(raw, Message):
        return raw
    calls = raw.get("tool_calls") if isinstance(raw, Mapping) else None
    if not isinstance(raw, Mapping) or "role" not in raw or ("content" not in raw and not calls):
        raise DataError(f"{where}: wanted an object with 'role' and 'content'.")
    role = raw["role"]
    if role not in ROLES:
        shown = repr(role) if isinstance(role, str) and ROLE_NAME.fullmatch(role) else "that is no plain word"
        raise DataError(f"{where}: unknown role {shown}; known are {', '.join(ROLES)}.")
    content = _text(raw.get("content"), f"{where}.content")
    if role != "assistant":
        return Message(role, content)
    reasoning = _text(raw.get("reasoning"), f"{where}.reasoning")
    trained = _switched_on(raw.get("loss", raw.get("weight")))
    return Message(role, content, trained, _tool_calls(calls, f"{where}.tool_calls"), reasoning)


def _tool_calls(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    """Calls as `{"name", "arguments"}`, taken out of OpenAI's `{"type": "function", "function": ...}`."""
    calls = []
    for i, raw in enumerate(_objects(value, where)):
        call = raw.get("function", raw)
        name = call.get("name") if isinstance(call, Mapping) else None
        if not name or not isinstance(name, str):
            raise DataError(f"{where}[{i}]: wanted a call with a 'name'.")
        arguments = parsed_json(call.get("arguments") or {}, f"{where}[{i}].arguments")
        if not isinstance(arguments, Mapping):
            got = type(arguments).__name__
            raise DataError(f"{where}[{i}].arguments: wanted an object, also as JSON text, got a {got}.")
        calls.append({"name": name, "arguments": dict(arguments)})
    return tuple(calls)


def _tools(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    """Tools in OpenAI's form, from that form or bare `{"name", ...}`, as a list or as JSON text."""
    tools = []
    for i, raw in enumerate(_objects(parsed_json(value or None, where), where)):
        inner = raw.get("function")
        described: Mapping[str, Any] = inner if isinstance(inner, Mapping) else raw
        if not described.get("name"):
            raise DataError(f"{where}[{i}]: wanted a tool with a 'name'.")
        tools.append({"type": "function", "function": dict(described)})
    return tuple(tools)


def _objects(value: Any, where: str) -> list[Mapping[str, Any]]:
    items = [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
    for i, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise DataError(f"{where}[{i}]: wanted an object, got a {type(item).__name__}.")
    return items


def _checked(record: Record) -> Record:
    """The record, if its roles stand in an order that can be rendered."""
    if isinstance(record, Conversation):
        _check_order(record.messages, record.origin, "messages")
        return record
    if not any(message.role in ("user", "tool") for message in record.prompt):
        raise DataError(f"{record.origin}: prompt: no message of a user to answer.")
    for name, answer in (("chosen", record.chosen), ("rejected", record.rejected)):
        if not answer or answer[0].role != "assistant":
            raise DataError(f"{record.origin}: {name}: wanted an answer, a message of the assistant first.")
        _check_order((*record.prompt, *answer), record.origin, f"prompt + {name}")
    return record


def _check_order(messages: tuple[Message, ...], origin: str, part: str) -> None:
    """System at most once and first; users and assistants by turns; tool results after an assistant or each other."""
    if not any(message.role == "assistant" for message in messages):
        raise DataError(f"{origin}: the conversation has no assistant message to learn from.")
    before = ""
    for i, message in enumerate(messages):
        role = message.role
        if role == "system" and i > 0:
            raise DataError(f"{origin}: {part}[{i}]: a system message must be the first.")
        if role == before and role != "tool":
            raise DataError(f"{origin}: {part}[{i}]: two {role} messages in a row.")
        if role == "tool" and before not in ("assistant", "tool"):
            raise DataError(f"{origin}: {part}[{i}]: a tool's result must follow the assistant that called it.")
        before = role

"""Lists of turns, in the many forms people write them, as OpenAI's messages: what the chat map functions share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from medtune.data.records import parsed_json
from medtune.errors import DataError

Fields = Mapping[str, Any]

# What data sets call the speakers -> the roles of a record. A function_call is an assistant's turn.
ROLE_NAMES = {
    **dict.fromkeys(("user", "human", "client", "patient", "患者"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "counselor", "doctor", "医生", "function_call"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function", "function_response"), "tool"),
}
KEYS = {"role": "content", "from": "value", "speaker": "sentence"}
ROLE_KEYS, TEXT_KEYS, SWITCHES = tuple(KEYS), tuple(KEYS.values()), ("loss", "weight")


def join(*parts: Any) -> Any:
    """Join the parts that hold text by newlines; a part that is no text is returned alone, for validation to name."""
    held = [part for part in parts if part]
    return next((part for part in held if not isinstance(part, str)), None) or "\n".join(held)


def one_turn(question: Any, answer: Any, system: Any = None) -> dict[str, Any]:
    """Return a conversation of one question and its answer; an empty system text is left out."""
    turn = {"input": question, "output": answer}
    return {"conversation": [{"system": system, **turn} if system else turn]}


def openai_messages(turns: Iterable[Any], system: Any = None, joined: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """OpenAI's messages of a list of turns.

    Args:
        turns: `{"role" or "from" or "speaker", "content" or "value" or "sentence", ...}`, or such a turn alone.
            ShareGPT's function_call and OpenAI's tool_calls and function_call become tool calls of an assistant's
            message, together with the text that it says before.
        system: a system text from beside the list, for lists that do not begin with one.
        joined: roles whose messages, where they follow one another, are joined by a newline.

    Raises:
        KeyError: a turn has no role or no text.
        DataError: a turn is no object, or a call is not JSON.
    """
    messages: list[dict[str, Any]] = []
    for turn in [turns] if isinstance(turns, Mapping) else turns:
        message = _message(turn)
        last = messages[-1] if messages else {"role": None}
        same = message["role"] == last["role"]
        if same and message["role"] == "assistant" and "tool_calls" in message and "tool_calls" not in last:
            last.update(tool_calls=message["tool_calls"])
            last["content"] = join(last["content"], message["content"])
        elif same and message["role"] in joined:
            last["content"] = join(last["content"], message["content"])
        else:
            messages.append(message)
    if system and not (messages and messages[0]["role"] == "system"):
        messages.insert(0, {"role": "system", "content": system})
    return messages


def with_tools(record: dict[str, Any], row: Fields) -> dict[str, Any]:
    """The record with the row's tools, if it has some."""
    return {**record, "tools": row["tools"]} if row.get("tools") else record


def _message(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise DataError(f"a turn: wanted an object with a role and a text, got a {type(turn).__name__}.")
    name = _first(turn, ROLE_KEYS)
    if name is None:
        raise KeyError("role")
    calls = turn.get("tool_calls") or turn.get("function_call")
    text = _first(turn, TEXT_KEYS)
    if text is None and not calls and not any(key in turn for key in TEXT_KEYS):
        raise KeyError(next(text_key for role_key, text_key in KEYS.items() if role_key in turn))
    role = ROLE_NAMES.get(name, name) if isinstance(name, str) else name
    message: dict[str, Any] = {"role": role, "content": _plain(text)}
    if name == "function_call":
        message.update(content="", tool_calls=parsed_json(text, "a function_call"))
    elif calls:
        message["tool_calls"] = calls
    if reasoning := turn.get("reasoning_content") or turn.get("reasoning"):
        message["reasoning"] = reasoning
    switch = _first(turn, SWITCHES)
    if role == "assistant" and switch is not None:
        message["loss"] = switch
    return message


def _first(turn: Fields, keys: tuple[str, ...]) -> Any:
    """Value of the first of these keys that has one; tables fill the keys of other rows with None."""
    for key in keys:
        if (value := turn.get(key)) is not None:
            return value
    return None


def _plain(content: Any) -> Any:
    """Text of OpenAI's `content`, which may be a list of text parts."""
    if isinstance(content, list) and all(isinstance(part, Mapping) and "text" in part for part in content):
        return "".join(part["text"] for part in content)
    return content

"""Text of the data never becomes a control token: a patient who writes "<|im_end|>" does not end the turn.

Such text is marked before rendering, inside the control token's name, wherever the data may hold it: contents,
reasoning, tool calls and tool definitions. The rendered text is cut at the marks, so that the tokenizer never sees the
name whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from medtune.data.records import Message
from medtune.errors import DataError

CUT = "\ufdd0"
"""Marks where to cut. A Unicode noncharacter: no text holds it."""
MANY_CHARACTERS = 16


class ControlText:
    """Finds and marks the names of control tokens in messages.

    Args:
        tokens: names that no text of the data may hold. One character is ordinary text whatever the tokenizer calls
            it, and could not be cut.
        prompt_tokens: more of them, that only an answer may hold, such as `<think>`.
    """

    def __init__(self, tokens: Iterable[str], prompt_tokens: Iterable[str] = ()) -> None:
        self.tokens = _longest_first(tokens)
        self._in_answers = _Names(self.tokens)
        self._in_prompts = _Names(_longest_first([*self.tokens, *prompt_tokens]))

    def guard(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[Sequence[Message], Sequence[Mapping[str, Any]], bool]:
        """The messages and tools with every such name marked by `CUT` after its first character, and if there was one.

        Raises:
            DataError: a text is not Unicode.
        """
        found = any(map(self._in_prompts.search, _strings(tools)))
        for i, message in enumerate(messages):
            found = self._holds(message, i) or found
        if not found:
            return messages, tools, False
        guarded = [self._guarded(message, self._names_for(message).mark) for message in messages]
        return guarded, _map_strings(tools, self._in_prompts.mark), True

    def _names_for(self, message: Message) -> _Names:
        return self._in_answers if message.role == "assistant" else self._in_prompts

    def _holds(self, message: Message, i: int) -> bool:
        texts = [message.content]
        if message.reasoning or message.tool_calls:
            texts += [message.reasoning, *_strings(message.tool_calls)]
        for text in texts:
            _check_unicode(text, i)
        return any(map(self._names_for(message).search, texts))

    @staticmethod
    def _guarded(message: Message, mark: Callable[[str], str]) -> Message:
        calls = tuple(_map_strings(message.tool_calls, mark))
        return replace(message, content=mark(message.content), reasoning=mark(message.reasoning), tool_calls=calls)


class _Names:
    """Control tokens' names, longest first, as patterns."""

    def __init__(self, names: Sequence[str]) -> None:
        pattern = "|".join(map(re.escape, names)) or "(?!)"
        self._any = re.compile(f"{pattern}|{CUT}")
        self._first_char = re.compile(f"(?={pattern})(.)", re.DOTALL)
        first = sorted({name[0] for name in names} | {CUT})
        self._first = first if len(first) <= MANY_CHARACTERS else []

    def search(self, text: str) -> bool:
        """Whether a text holds one of them. Few texts hold even the first character of one."""
        if self._first and not any(char in text for char in self._first):
            return False
        return self._any.search(text) is not None

    def mark(self, text: str) -> str:
        return self._first_char.sub(rf"\1{CUT}", text.replace(CUT, ""))


def _longest_first(tokens: Iterable[str]) -> list[str]:
    return sorted({token for token in tokens if len(token) > 1}, key=len, reverse=True)


def _check_unicode(text: str, i: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        where = f"messages[{i}], character {fault.start}"
        raise DataError(f"{where}: half a surrogate pair, which no tokenizer reads; mend the text.") from None


def _strings(value: Any) -> Iterable[str]:
    """Every text in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def _map_strings(value: Any, function: Callable[[str], str]) -> Any:
    """The same JSON value with every text, and every key, passed through `function`."""
    if isinstance(value, str):
        return function(value)
    if isinstance(value, Mapping):
        return {_map_strings(key, function): _map_strings(item, function) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map_strings(item, function) for item in value]
    return value

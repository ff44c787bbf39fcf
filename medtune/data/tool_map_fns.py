"""Map functions of conversations with tools in a form of their own: MOSS.

Import them from `medtune.data.map_fns`, which says what a map function is. ShareGPT's and OpenAI's tools are read by
`sharegpt_map_fn` and `openai_map_fn`; MS-Agent's by `msagent_react_map_fn`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from medtune.data.turns import Fields
from medtune.errors import DataError

# "<|Human|>: Hi<eoh>\n": a field of MOSS between its control tokens.
MOSS_FIELD = re.compile(r"\s*(?:<\|[\w ]+\|>:)?(.*?)(?:<eo[a-z]>)?\s*", re.DOTALL)
MOSS_CALL = re.compile(r"\s*(\w+)\((.*?)\)\s*(?:,(?=\s*\w+\()|$)", re.DOTALL)
# Names of the one argument that each tool of MOSS takes, as its meta instruction has them.
MOSS_ARGUMENTS = {
    "Search": "query",
    "Calculate": "expression",
    "Solve": "equation",
    "Text2Image": "description",
}


def moss_map_fn(row: Fields) -> dict[str, Any]:
    """{"chat" or "conversation": {"turn_1": {"Human", "MOSS", "Commands"?, ...}, ...}, "meta_instruction"?}.

    moss-003-sft-data, with and without plugins; the meta instruction is the system text, "Inner Thoughts" become
    reasoning, "Commands" tool calls, "Tool Responses" a tool's message. Also its lists of {"human", "assistant"}.

    >>> moss_map_fn({"chat": {"turn_1": {"Human": "<|Human|>: Hi<eoh>", "Commands": "<|Commands|>: None<eoc>",
    ...                                  "MOSS": "<|MOSS|>: Hello<eom>"}}})
    {'messages': [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello', 'reasoning': ''}]}
    """
    chat = row["chat"] if row.get("conversation") is None else row["conversation"]
    messages: list[dict[str, Any]] = []
    if row.get("meta_instruction"):
        messages.append({"role": "system", "content": row["meta_instruction"].strip()})
    for turn in chat if isinstance(chat, list) else _in_order(chat):
        if "MOSS" in turn or "Human" in turn:
            messages += _moss_turn(turn)
        else:
            messages.append({"role": "user", "content": turn["human"]})
            messages.append({"role": "assistant", "content": turn["assistant"]})
    return {"messages": messages}


def _in_order(chat: Mapping[str, Any]) -> list[Any]:
    """Turns by number; a column of a table holds None for the turns that other rows have and this one has not."""
    turns = [(int(name.removeprefix("turn_")), turn) for name, turn in chat.items() if turn is not None]
    return [turn for _, turn in sorted(turns, key=lambda pair: pair[0])]


def _moss_turn(turn: Fields) -> list[dict[str, Any]]:
    thoughts, results = (_moss_text(turn.get(key)) for key in ("Inner Thoughts", "Tool Responses"))
    calls = _moss_calls(_moss_text(turn.get("Commands")))
    messages: list[dict[str, Any]] = [{"role": "user", "content": _moss_text(turn["Human"])}]
    if calls:
        messages.append({"role": "assistant", "content": "", "reasoning": thoughts, "tool_calls": calls})
        messages.append({"role": "tool", "content": results})
        thoughts = ""
    messages.append({"role": "assistant", "content": _moss_text(turn["MOSS"]), "reasoning": thoughts})
    return messages


def _moss_text(field: str | None) -> str:
    """A field without its control tokens; MOSS's word for nothing is None."""
    match = MOSS_FIELD.fullmatch(field or "")
    text = match[1].strip() if match else ""
    return "" if text == "None" else text


def _moss_calls(commands: str) -> list[dict[str, Any]]:
    """Calls of `Search("aspirin dose"), Calculate("2*3")`."""
    calls, at = [], 0
    while at < len(commands):
        match = MOSS_CALL.match(commands, at)
        if match is None:
            raise DataError("moss_map_fn: 'Commands' holds something else than calls, NAME(\"argument\").")
        argument = match[2].strip()
        quoted = len(argument) > 1 and argument[0] == argument[-1] and argument[0] in "\"'"
        name = MOSS_ARGUMENTS.get(match[1], "input")
        calls.append({"name": match[1], "arguments": {name: argument[1:-1] if quoted else argument}})
        at = match.end()
    return calls

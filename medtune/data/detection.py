"""What tells one row format from another: the order they are tried in, and what must hold beside their keys.

A format fits a row that has the keys it needs (`map_fns.FORMATS`) and passes its test here. The more telling shape
comes first: a pair of answers before a single one, options before a bare question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Test = Callable[[Any], bool]

# The formats with a system text of their own are chosen by name only.
DETECTED = (
    *("left_out", "conversation", "moss", "dialogue", "scored_pair", "question_preference", "sharegpt_preference"),
    *("alpaca_preference", "question_pair", "preference", "ranked", "kto"),
    *("openai", "msagent_react", "sharegpt"),
    *("pubmedqa", "medmcqa", "cmb", "cmb_clin", "medqa_us", "choices", "ceval", "mmlu"),
    *("user_bot", "alpaca_lists", "alpaca", "alpaca_zh", "openorca", "question_answer", "stack_exchange"),
    *("prompt_response", "oasst1_pair", "default", "oasst1", "pretrain", "content"),
)

SPEAKERS = ("client", "counselor", "patient", "doctor", "患者", "医生")
"""Roles of transcripts: people, not an assistant and its user."""

# What people write above a table's columns, or in place of the usual key -> the key that map functions read.
HEADERS = {
    **dict.fromkeys(("问题", "问", "提问", "ask"), "question"),
    **dict.fromkeys(("回答", "答案", "答"), "answer"),
    **{"指令": "instruction", "输入": "input", "输出": "output", "系统": "system", "instruct": "instruction"},
}


def plain_keys(fields: Any) -> Any:
    """A table row's headers as the keys map functions read: lower case, no edge spaces, Chinese words translated.

    >>> plain_keys({"Question": "Is aspirin an NSAID?", "答案": "Yes."})
    {'question': 'Is aspirin an NSAID?', 'answer': 'Yes.'}
    """
    if not isinstance(fields, Mapping):
        return fields
    folded = ((str(key).strip().casefold(), value) for key, value in fields.items())
    return {HEADERS.get(key, key): value for key, value in folded}


def passes(name: str, fields: Any) -> bool:
    """True if a row with the keys of a format is one of that format."""
    test = TESTS.get(name)
    return test is None or test(fields)


def _is_list(key: str) -> Test:
    return lambda row: isinstance(row[key], (list, tuple))


def _begins(key: str, *beginnings: str) -> Test:
    return lambda row: isinstance(row[key], str) and row[key].lstrip().startswith(beginnings)


def _is_structured(row: Any) -> bool:
    turns = row["conversation"]
    return isinstance(turns, list) and (not turns or not isinstance(turns[0], Mapping) or "output" in turns[0])


def _is_moss(row: Any) -> bool:
    chat = row.get("conversation") if row.get("conversation") is not None else row.get("chat")
    if isinstance(chat, list):
        return bool(chat) and isinstance(chat[0], Mapping) and "human" in chat[0]
    return isinstance(chat, Mapping) and bool(chat) and all(str(name).startswith("turn_") for name in chat)


def _is_dialogue(row: Any) -> bool:
    if isinstance(row, list):
        return bool(row) and all(isinstance(turn, Mapping) and "role" in turn for turn in row)
    messages = row.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[0], Mapping):
        return messages[0].get("role") in SPEAKERS
    return isinstance(row.get("dialogue-content"), list)


def _is_scored_pair(row: Any) -> bool:
    return "[The Start of Assistant 2's Answer]" in str(row["input"])


def _has_chat(row: Any) -> bool:
    return any(isinstance(row.get(key), (list, tuple)) for key in ("conversations", "messages"))


def _is_kto(row: Any) -> bool:
    if isinstance(row.get("kto_tag"), bool):
        return _has_chat(row) or ("instruction" in row and "output" in row)
    return isinstance(row.get("label"), bool) and (_has_chat(row) or ("prompt" in row and "completion" in row))


def _is_ranked(row: Any) -> bool:
    return isinstance(row["output"], list) and len(row["output"]) > 1


def _is_listed(row: Any) -> bool:
    return all(isinstance(row[key], list) and len(row[key]) == 1 for key in ("instruction", "output"))


def _is_mmlu(row: Any) -> bool:
    return set(row) == set("ABCDEF") and str(row["F"]).strip() in ("A", "B", "C", "D")


def _has_options(row: Any) -> bool:
    return ("question" in row or "Question" in row) and not isinstance(row["A"], (list, Mapping))


def _is_text_alone(row: Any) -> bool:
    """Text beside an answer is a question under another name, and text with a role is a part of a dialogue."""
    return not any(key in row for key in ("answer", "output", "response", "role"))


TESTS: dict[str, Test] = {
    "left_out": lambda row: len(row) == 1,  # a column of that name beside others is the data's own
    "conversation": _is_structured,
    "moss": _is_moss,
    "dialogue": _is_dialogue,
    "scored_pair": _is_scored_pair,
    "sharegpt_preference": _has_chat,
    "ranked": _is_ranked,
    "kto": _is_kto,
    "openai": _is_list("messages"),
    "msagent_react": lambda row: isinstance(row["conversations"], str),
    "sharegpt": _is_list("conversations"),
    "cmb": lambda row: isinstance(row["option"], Mapping),
    "cmb_clin": _is_list("QA_pairs"),
    "medqa_us": lambda row: isinstance(row["options"], (Mapping, list)),
    "choices": _is_list("choices"),
    "ceval": _has_options,
    "mmlu": _is_mmlu,
    "user_bot": _begins("instruction", "<user>"),
    "alpaca_lists": _is_listed,
    "prompt_response": lambda row: "response" in row or "completion" in row,
    "oasst1_pair": _begins("input", "### Human:"),
    "oasst1": _begins("text", "### Human:"),
    "pretrain": _is_text_alone,
    "content": _is_text_alone,
}

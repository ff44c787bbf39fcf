"""Map functions of preference sets (a better and a worse answer to one prompt) and of KTO's labelled answers.

Import them from `medtune.data.map_fns`, which says what a map function is. Answers may be texts, messages or lists of
messages; so may prompts.
"""

from __future__ import annotations

import re
from typing import Any

from medtune.data.chat_map_fns import alpaca_map_fn
from medtune.data.records import SkippedRow, parsed_json
from medtune.data.turns import Fields, openai_messages, with_tools
from medtune.errors import DataError

SCORES = re.compile(r"\s*(\d+(?:\.\d+)?)[ ,/]+(\d+(?:\.\d+)?)(?![\d.])")
JUDGED = re.compile(
    r"\[Question\]\n(.*?)\n\s*\[The Start of Assistant 1's Answer\]\n(.*?)\n\[The End of Assistant 1's Answer\]"
    r"\s*\[The Start of Assistant 2's Answer\]\n(.*?)\n\[The End of Assistant 2's Answer\]",
    re.DOTALL,
)
LABELS = {"true": True, "1": True, "false": False, "0": False}


def pair(prompt: list[dict[str, Any]], chosen: Any, rejected: Any, row: Fields) -> dict[str, Any]:
    """A preference of a prompt and two answers; tools and the system text come from the row.

    Answers that are whole conversations bring the prompt themselves: what they begin with in common.
    """
    better, worse = _answer(chosen), _answer(rejected)
    if better and better[0]["role"] != "assistant":
        both = enumerate(zip(better, worse, strict=False))
        shared = next((i for i, (one, other) in both if one != other), min(len(better), len(worse)))
        while shared and better[shared - 1]["role"] == "assistant":
            shared -= 1
        prompt, better, worse = better[:shared], better[shared:], worse[shared:]
    if row.get("system") and not (prompt and prompt[0]["role"] == "system"):
        prompt = [{"role": "system", "content": row["system"]}, *prompt]
    return with_tools({"prompt": prompt, "chosen": better, "rejected": worse}, row)


def preference_map_fn(row: Fields) -> dict[str, Any]:
    """{"prompt"?, "chosen", "rejected", "system"?, "tools"?}: texts or lists of messages, as TRL has them.

    Without a prompt, it is what the two conversations have in common.

    >>> preference_map_fn({"prompt": "Hi", "chosen": "Hello", "rejected": "What?"})["chosen"]
    [{'role': 'assistant', 'content': 'Hello'}]
    """
    return pair(_prompt(row.get("prompt")), row["chosen"], row["rejected"], row)


def alpaca_preference_map_fn(row: Fields) -> dict[str, Any]:
    """{"instruction", "input"?, "chosen", "rejected", "history"?, "system"?}.

    >>> alpaca_preference_map_fn({"instruction": "Hi", "chosen": "Hello", "rejected": "What?"})["prompt"]
    [{'role': 'user', 'content': 'Hi'}]
    """
    return pair(_alpaca_prompt(row), row["chosen"], row["rejected"], row)


def question_preference_map_fn(row: Fields) -> dict[str, Any]:
    """{"question", "response_chosen", "response_rejected", "system"?, "history"?}: MedicalGPT's.

    >>> question_preference_map_fn({"question": "Hi", "response_chosen": "Hello", "response_rejected": "?"})["rejected"]
    [{'role': 'assistant', 'content': '?'}]
    """
    prompt = _alpaca_prompt({"instruction": row["question"], "history": row.get("history")})
    return pair(prompt, row["response_chosen"], row["response_rejected"], row)


def question_pair_map_fn(row: Fields) -> dict[str, Any]:
    """{"question", "chosen", "rejected", "system"?}: Intel Orca DPO.

    >>> question_pair_map_fn({"question": "Hi", "chosen": "Hello", "rejected": "?"})["prompt"]
    [{'role': 'user', 'content': 'Hi'}]
    """
    return pair(_prompt(row["question"]), row["chosen"], row["rejected"], row)


def sharegpt_preference_map_fn(row: Fields) -> dict[str, Any]:
    """{"conversations" or "messages": the prompt, "chosen", "rejected", "system"?, "tools"?}.

    >>> sharegpt_preference_map_fn({"conversations": [{"from": "human", "value": "Hi"}],
    ...                             "chosen": {"from": "gpt", "value": "Hello"}, "rejected": "What?"})["rejected"]
    [{'role': 'assistant', 'content': 'What?'}]
    """
    turns = row["messages"] if row.get("conversations") is None and "messages" in row else row["conversations"]
    return pair(openai_messages(turns, joined=("user",)), row["chosen"], row["rejected"], row)


def ranked_map_fn(row: Fields) -> dict[str, Any]:
    """{"instruction", "input"?, "output": [best, ..., worst], "history"?, "system"?}: CareLlama's reward rows.

    Of more than two answers the best and the worst make the pair: their order is the surest.

    >>> ranked_map_fn({"instruction": "Hi", "input": "", "output": ["Hello", "Yes", "What?"]})["rejected"]
    [{'role': 'assistant', 'content': 'What?'}]
    """
    answers = row["output"]
    if not isinstance(answers, list) or len(answers) < 2:
        raise DataError("ranked_map_fn: wanted a list of two or more answers as the output, the best first.")
    return pair(_alpaca_prompt(row), answers[0], answers[-1], row)


def scored_pair_map_fn(row: Fields) -> dict[str, Any]:
    """{"input": a judge's prompt with two answers, "output": its reply, two scores first}: PULSE-EVAL, FastChat.

    Both are messages as JSON text. A tie teaches nothing and is left out.

    >>> asked = "[Question]\\nHi\\n\\n" + "".join(
    ...     f"[The Start of Assistant {n}'s Answer]\\n{text}\\n[The End of Assistant {n}'s Answer]\\n"
    ...     for n, text in ((1, "What?"), (2, "Hello")))
    >>> scored_pair_map_fn({"input": {"messages": [{"role": "user", "content": asked}]},
    ...                     "output": {"role": "assistant", "content": "2 9\\nThe second greets."}})["chosen"]
    [{'role': 'assistant', 'content': 'Hello'}]
    """
    asked = parsed_json(row["input"], "input")["messages"][-1]["content"]
    judged = JUDGED.search(asked)
    scores = SCORES.match(parsed_json(row["output"], "output")["content"])
    if judged is None or scores is None:
        what = "two answers in its input" if judged is None else "two scores at the start of its output"
        raise DataError(f"scored_pair_map_fn: no {what}. Fix the row.")
    first, second = float(scores[1]), float(scores[2])
    if first == second:
        raise SkippedRow("both answers have the same score")
    answers = (judged[2], judged[3]) if first > second else (judged[3], judged[2])
    return pair(_prompt(judged[1].strip()), *answers, {})


def kto_map_fn(row: Fields) -> dict[str, Any]:
    """{"messages" or "conversations", "label": true|false}, or {"prompt", "completion", "label"}; or "kto_tag".

    >>> kto_map_fn({"prompt": "Hi", "completion": "What?", "label": False})
    ... # doctest: +NORMALIZE_WHITESPACE
    {'messages': [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'What?'}], 'label': False}
    """
    said = row["label"] if row.get("kto_tag") is None else row["kto_tag"]
    label = LABELS.get(str(said).strip().lower())
    if label is None:
        raise DataError("kto_map_fn: label: wanted true or false. Fix the row.")
    turns = row.get("messages") if row.get("messages") is not None else row.get("conversations")
    if turns is None and "instruction" in row:
        messages = [*_alpaca_prompt(row), *_answer(row["output"])]
    elif turns is None:
        messages = [*_prompt(row["prompt"]), *_answer(row["completion"])]
    else:
        messages = openai_messages(turns, joined=("user",))
    if row.get("system") and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": row["system"]}, *messages]
    return with_tools({"messages": messages, "label": label}, row)


def _prompt(prompt: Any) -> list[dict[str, Any]]:
    """Messages of a prompt: a question, a message, a list of messages, or nothing."""
    if prompt is None or isinstance(prompt, str):
        return [{"role": "user", "content": prompt}] if prompt else []
    return openai_messages(prompt, joined=("user",))


def _answer(answer: Any) -> list[dict[str, Any]]:
    """Messages of an answer: a text, a message or a list of messages."""
    if answer is None or isinstance(answer, str):
        return [{"role": "assistant", "content": answer}]
    return openai_messages(answer)


def _alpaca_prompt(row: Fields) -> list[dict[str, Any]]:
    """Messages of an Alpaca row before its answer; its system text is left to `pair`."""
    messages = []
    for turn in alpaca_map_fn({**row, "output": "", "system": None})["conversation"]:
        messages.append({"role": "user", "content": turn["input"]})
        messages.append({"role": "assistant", "content": turn["output"]})
    return messages[:-1]

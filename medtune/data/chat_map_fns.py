"""Map functions of chat, question and answer, and plain text: XTuner's by their names, and medicine's own shapes.

Import them from `medtune.data.map_fns`, which says what a map function is.
"""

from __future__ import annotations

import re
from typing import Any

from medtune.data.turns import Fields, join, one_turn, openai_messages, with_tools
from medtune.errors import DataError

OASST_MARKER = re.compile(r"### (Human|Assistant):[ \t]*")
TAG_MARKER = re.compile(r"<(user|bot)>\s*[:：]")
TAG_ROLES = {"Human": "user", "Assistant": "assistant", "user": "user", "bot": "assistant"}


def alpaca_map_fn(row: Fields) -> dict[str, Any]:
    """{"instruction", "input"?, "output", "history"?: [[question, answer], ...], "system"?}.

    Alpaca's own marker for "no answer", `<nooutput>`, becomes an empty answer.

    >>> alpaca_map_fn({"instruction": "Translate.", "input": "fièvre", "output": "fever", "history": [["Hi", "Hello"]]})
    {'conversation': [{'input': 'Hi', 'output': 'Hello'}, {'input': 'Translate.\\nfièvre', 'output': 'fever'}]}
    """
    answer = "" if row["output"] == "<nooutput>" else row["output"]
    last = one_turn(join(row["instruction"], row.get("input")), answer)["conversation"]
    turns = [{"input": question, "output": reply} for question, reply in row.get("history") or []] + last
    if row.get("system"):
        turns[0] = {"system": row["system"], **turns[0]}
    return {"conversation": turns}


def alpaca_lists_map_fn(row: Fields) -> dict[str, Any]:
    """{"instruction": [question], "input"?, "output": [answer]}: Alpaca whose texts stand in lists of one.

    >>> alpaca_lists_map_fn({"instruction": ["Is aspirin an NSAID?"], "input": "", "output": ["Yes."]})
    {'conversation': [{'input': 'Is aspirin an NSAID?', 'output': 'Yes.'}]}
    """
    return alpaca_map_fn({**row, "instruction": _only(row["instruction"]), "output": _only(row["output"])})


def _only(texts: Any) -> Any:
    if not isinstance(texts, list) or len(texts) != 1:
        raise DataError("alpaca_lists_map_fn: wanted a list of one text as the instruction and as the output.")
    return texts[0]


def alpaca_zh_map_fn(row: Fields) -> dict[str, Any]:
    """{"instruction_zh", "input_zh"?, "output_zh"}.

    >>> alpaca_zh_map_fn({"instruction_zh": "什么是发热？", "input_zh": "", "output_zh": "体温升高。"})
    {'conversation': [{'input': '什么是发热？', 'output': '体温升高。'}]}
    """
    return one_turn(join(row["instruction_zh"], row.get("input_zh")), row["output_zh"])


def conversation_map_fn(row: Fields) -> dict[str, Any]:
    """{"conversation": [{"system"?, "input", "output", "output_with_loss"?}, ...]}: XTuner's own.

    >>> conversation_map_fn({"conversation": [{"input": "Hi", "output": "Hello"}], "source": "ward 3"})
    {'conversation': [{'input': 'Hi', 'output': 'Hello'}]}
    """
    return {"conversation": row["conversation"]}


def default_map_fn(row: Fields) -> dict[str, Any]:
    """{"input", "output", "system"?}: also what `data_columns` makes of any table.

    >>> default_map_fn({"input": "Is aspirin an NSAID?", "output": "Yes."})
    {'conversation': [{'input': 'Is aspirin an NSAID?', 'output': 'Yes.'}]}
    """
    return one_turn(row["input"], row["output"], row.get("system"))


def dialogue_map_fn(row: Any) -> dict[str, Any]:
    """{"messages": [{"role": client|counselor, "content"}, ...]}, or {"dialogue-content": [{"speaker", ...}, ...]}.

    Transcripts, SMILE's and CMDD's; a row may be the list alone. What a speaker says in several messages is joined by
    newlines, and a message without text (a picture was sent) is left out.

    >>> dialogue_map_fn([{"role": "client", "content": "Hi."}, {"role": "client", "content": "I sleep badly."},
    ...                  {"role": "counselor", "content": "Since when?"}])["messages"][0]
    {'role': 'user', 'content': 'Hi.\\nI sleep badly.'}
    """
    turns = row if isinstance(row, list) else row["messages"] if "messages" in row else row["dialogue-content"]
    spoken = [turn for turn in turns if not any(turn.get(key, " ") == "" for key in ("content", "sentence"))]
    return {"messages": openai_messages(spoken, joined=("user", "assistant"))}


def oasst1_map_fn(row: Fields) -> dict[str, Any]:
    """{"text": "### Human: ... ### Assistant: ..."}: OpenAssistant-Guanaco; a `###` heading in an answer stays.

    >>> oasst1_map_fn({"text": "### Human: Plan a meal.### Assistant: ### Lunch\\nSoup."})
    {'messages': [{'role': 'user', 'content': 'Plan a meal.'}, {'role': 'assistant', 'content': '### Lunch\\nSoup.'}]}
    """
    return {"messages": _tagged(OASST_MARKER, row["text"])}


def oasst1_pair_map_fn(row: Fields) -> dict[str, Any]:
    """{"input": "### Human: ... ### Assistant:", "output"}: the same, its last answer apart.

    >>> oasst1_pair_map_fn({"input": "### Human: Plan a meal. ### Assistant:", "output": "Soup."})
    {'messages': [{'role': 'user', 'content': 'Plan a meal.'}, {'role': 'assistant', 'content': 'Soup.'}]}
    """
    return {"messages": _answered(_tagged(OASST_MARKER, row["input"]), row["output"])}


def user_bot_map_fn(row: Fields) -> dict[str, Any]:
    """{"instruction": "<user>: ... <bot>: ... <user>: ...", "output"}: turns in one text, as Huatuo-Llama has them.

    >>> user_bot_map_fn({"instruction": "<user>: Hi <bot>: Hello <user>: What is a fever?", "output": "38 °C."})
    ... # doctest: +NORMALIZE_WHITESPACE
    {'messages': [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'},
                  {'role': 'user', 'content': 'What is a fever?'}, {'role': 'assistant', 'content': '38 °C.'}]}
    """
    return {"messages": _answered(_tagged(TAG_MARKER, row["instruction"]), row["output"])}


def _tagged(marker: re.Pattern[str], text: str) -> list[dict[str, Any]]:
    """Messages of a text whose turns begin with a marker; what stands before the first one is the system text."""
    preface, *pieces = marker.split(text)
    messages = [{"role": "system", "content": preface.strip()}] if preface.strip() else []
    for name, said in zip(pieces[::2], pieces[1::2], strict=True):
        messages.append({"role": TAG_ROLES[name], "content": said.strip()})
    return messages


def _answered(messages: list[dict[str, Any]], answer: Any) -> list[dict[str, Any]]:
    """The messages with their last answer, which may be announced by an empty one."""
    if messages and messages[-1]["role"] == "assistant" and not messages[-1]["content"]:
        messages = messages[:-1]
    return [*messages, {"role": "assistant", "content": answer}]


def openai_map_fn(row: Fields) -> dict[str, Any]:
    """{"messages": [{"role", "content", "tool_calls"?, "weight" or "loss"?, "reasoning_content"?}, ...], "tools"?}.

    Messages of the user that follow one another are joined by a newline.

    >>> openai_map_fn({"messages": [{"role": "user", "content": "Hi"},
    ...                             {"role": "assistant", "content": "Hello", "weight": 0}]})
    {'messages': [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello', 'loss': 0}]}
    """
    return with_tools({"messages": openai_messages(row["messages"], row.get("system"), joined=("user",))}, row)


def openorca_map_fn(row: Fields) -> dict[str, Any]:
    """{"system_prompt", "question", "response"}.

    >>> openorca_map_fn({"system_prompt": "Be brief.", "question": "What is a fever?", "response": "38 °C or more."})
    {'conversation': [{'system': 'Be brief.', 'input': 'What is a fever?', 'output': '38 °C or more.'}]}
    """
    return one_turn(row["question"], row["response"], row["system_prompt"])


def content_map_fn(row: Fields) -> dict[str, Any]:
    """{"content"}: text to learn as it stands, no question.

    >>> content_map_fn({"content": "Aspirin is an NSAID."})
    {'conversation': [{'input': '', 'output': 'Aspirin is an NSAID.'}]}
    """
    return one_turn("", row["content"])


def pretrain_map_fn(row: Fields) -> dict[str, Any]:
    """{"text"}: text to learn as it stands, no question.

    >>> pretrain_map_fn({"text": "Aspirin is an NSAID."})
    {'conversation': [{'input': '', 'output': 'Aspirin is an NSAID.'}]}
    """
    return one_turn("", row["text"])


def prompt_response_map_fn(row: Fields) -> dict[str, Any]:
    """{"prompt", "response" or "completion", "system"?}.

    >>> prompt_response_map_fn({"prompt": "Hi", "response": "Hello"})
    {'conversation': [{'input': 'Hi', 'output': 'Hello'}]}
    """
    answer = row["completion"] if "completion" in row and "response" not in row else row["response"]
    return one_turn(row["prompt"], answer, row.get("system"))


def question_answer_map_fn(row: Fields) -> dict[str, Any]:
    """{"question", "answer", "context"?, "system"?}: the context, if any, stands before the question.

    >>> question_answer_map_fn({"question": "Is aspirin an NSAID?", "answer": "Yes."})
    {'conversation': [{'input': 'Is aspirin an NSAID?', 'output': 'Yes.'}]}
    """
    return one_turn(join(row.get("context"), row["question"]), row["answer"], row.get("system"))


def sharegpt_map_fn(row: Fields) -> dict[str, Any]:
    """{"conversations": [{"from": human|gpt|function_call|observation|..., "value"}, ...], "system"?, "tools"?}.

    >>> sharegpt_map_fn({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]})
    {'messages': [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]}
    """
    system = row.get("system") or row.get("system_prompt")
    return with_tools({"messages": openai_messages(row["conversations"], system)}, row)


def stack_exchange_map_fn(row: Fields) -> dict[str, Any]:
    """{"question", "response"}.

    >>> stack_exchange_map_fn({"question": "What is a fever?", "response": "38 °C or more."})
    {'conversation': [{'input': 'What is a fever?', 'output': '38 °C or more.'}]}
    """
    return one_turn(row["question"], row["response"])


def wizardlm_map_fn(row: Fields) -> dict[str, Any]:
    """{"conversations": [{"from": human|gpt, "value"}, ...]}: the same as sharegpt.

    >>> wizardlm_map_fn({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]})
    {'messages': [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]}
    """
    return sharegpt_map_fn(row)

"""Map functions: one row of a data file in, one XTuner or OpenAI conversation out.

The names and shapes are those of XTuner 0.1.23, plus a few shapes medical data comes in. Each function is pure, takes
the row as a dict, ignores columns it does not know, and raises KeyError for one that it needs. The first line of each
docstring is the row's shape (`?` marks an optional key); `medtune list-dataset-format` prints it.

Only the formats XTuner tied to one subject (sql, arxiv, code_alpaca, ...) bring a system text of their own, and
`detect` never chooses those: a system text that nobody asked for would be trained on.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from medtune.data.records import Conversation, Row, shown_names, to_conversation
from medtune.data.subject_map_fns import (
    Fields,
    arxiv_map_fn,
    code_alpaca_map_fn,
    colors_map_fn,
    crime_kg_assitant_map_fn,
    join,
    law_reference_map_fn,
    medical_map_fn,
    msagent_react_map_fn,
    one_turn,
    sql_map_fn,
    tiny_codes_map_fn,
)
from medtune.errors import DataError, MedtuneError, nearest

MapFn = Callable[[Any], Any]

SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant"}
OASST_MARKER = re.compile(r"### (Human|Assistant):[ \t]*")


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


def oasst1_map_fn(row: Fields) -> dict[str, Any]:
    """{"text": "### Human: ... ### Assistant: ..."}: OpenAssistant-Guanaco; a `###` heading in an answer stays.

    >>> oasst1_map_fn({"text": "### Human: Plan a meal.### Assistant: ### Lunch\\nSoup."})
    {'messages': [{'role': 'user', 'content': 'Plan a meal.'}, {'role': 'assistant', 'content': '### Lunch\\nSoup.'}]}
    """
    preface, *pieces = OASST_MARKER.split(row["text"])
    messages = [{"role": "system", "content": preface.strip()}] if preface.strip() else []
    roles = {"Human": "user", "Assistant": "assistant"}
    for name, text in zip(pieces[::2], pieces[1::2], strict=True):
        messages.append({"role": roles[name], "content": text.strip()})
    return {"messages": messages}


def openai_map_fn(row: Fields) -> dict[str, Any]:
    """{"messages": [{"role": system|user|assistant, "content", "loss"?: true|false}, ...]}.

    Messages of the user that follow one another are joined by a newline.

    >>> openai_map_fn({"messages": [{"role": "user", "content": "Hi"},
    ...                             {"role": "assistant", "content": "Hello", "loss": "False"}]})
    {'messages': [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello', 'loss': False}]}
    """
    messages: list[dict[str, Any]] = []
    for raw in row["messages"]:
        message = {"role": raw["role"], "content": _content(raw.get("content"))}
        switch = raw.get("loss", raw.get("weight"))
        if message["role"] == "assistant" and switch is not None:
            message["loss"] = str(switch).strip().lower() not in ("false", "0", "0.0")
        if messages and message["role"] == messages[-1]["role"] == "user":
            messages[-1]["content"] = join(messages[-1]["content"], message["content"])
        else:
            messages.append(message)
    return {"messages": messages}


def _content(content: Any) -> Any:
    """Text of OpenAI's `content`, which may be a list of text parts."""
    if isinstance(content, list) and all(isinstance(part, Mapping) and "text" in part for part in content):
        return "".join(part["text"] for part in content)
    return content


def openorca_map_fn(row: Fields) -> dict[str, Any]:
    """{"system_prompt", "question", "response"}.

    >>> openorca_map_fn({"system_prompt": "Be brief.", "question": "What is a fever?", "response": "38 °C or more."})
    {'conversation': [{'system': 'Be brief.', 'input': 'What is a fever?', 'output': '38 °C or more.'}]}
    """
    return one_turn(row["question"], row["response"], row["system_prompt"])


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
    answer = row["response"] if "response" in row else row["completion"]
    return one_turn(row["prompt"], answer, row.get("system"))


def question_answer_map_fn(row: Fields) -> dict[str, Any]:
    """{"question", "answer", "context"?, "system"?}: the context, if any, stands before the question.

    >>> question_answer_map_fn({"question": "Is aspirin an NSAID?", "answer": "Yes."})
    {'conversation': [{'input': 'Is aspirin an NSAID?', 'output': 'Yes.'}]}
    """
    return one_turn(join(row.get("context"), row["question"]), row["answer"], row.get("system"))


def sharegpt_map_fn(row: Fields) -> dict[str, Any]:
    """{"conversations": [{"from": human|gpt|system, "value"}, ...], "system"? or "system_prompt"?}.

    >>> sharegpt_map_fn({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]})
    {'messages': [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]}
    """
    turns = row["conversations"]
    messages = [{"role": SHAREGPT_ROLES.get(t["from"], t["from"]), "content": t["value"]} for t in turns]
    system = row.get("system") or row.get("system_prompt")
    if system and not (messages and messages[0]["role"] == "system"):
        messages.insert(0, {"role": "system", "content": system})
    return {"messages": messages}


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


# Name -> the function, and the keys it cannot do without.
FORMATS: dict[str, tuple[MapFn, tuple[str, ...]]] = {
    "alpaca": (alpaca_map_fn, ("instruction", "output")),
    "alpaca_zh": (alpaca_zh_map_fn, ("instruction_zh", "output_zh")),
    "arxiv": (arxiv_map_fn, ("abstract", "title")),
    "code_alpaca": (code_alpaca_map_fn, ("prompt", "completion")),
    "colors": (colors_map_fn, ("description", "color")),
    "conversation": (conversation_map_fn, ("conversation",)),
    "crime_kg_assitant": (crime_kg_assitant_map_fn, ("input", "output")),
    "default": (default_map_fn, ("input", "output")),
    "law_reference": (law_reference_map_fn, ("question", "answer")),
    "medical": (medical_map_fn, ("instruction", "output")),
    "msagent_react": (msagent_react_map_fn, ("conversations",)),
    "oasst1": (oasst1_map_fn, ("text",)),
    "openai": (openai_map_fn, ("messages",)),
    "openorca": (openorca_map_fn, ("system_prompt", "question", "response")),
    "pretrain": (pretrain_map_fn, ("text",)),
    "prompt_response": (prompt_response_map_fn, ("prompt", "response")),
    "question_answer": (question_answer_map_fn, ("question", "answer")),
    "sharegpt": (sharegpt_map_fn, ("conversations",)),
    "sql": (sql_map_fn, ("context", "question", "answer")),
    "stack_exchange": (stack_exchange_map_fn, ("question", "response")),
    "tiny_codes": (tiny_codes_map_fn, ("prompt", "response")),
    "wizardlm": (wizardlm_map_fn, ("conversations",)),
}
DATASET_FORMATS: dict[str, MapFn] = {name: fn for name, (fn, _) in FORMATS.items()}

# Most telling shape first; the formats with a system text of their own are chosen by name only.
DETECTED = (
    *("conversation", "openai", "msagent_react", "sharegpt", "alpaca", "alpaca_zh", "openorca", "question_answer"),
    *("stack_exchange", "prompt_response", "default", "oasst1", "pretrain"),
)


def detect(fields: Any) -> str:
    """Return the name of the format that fits a row; its keys tell.

    Raises:
        DataError: none fits.

    >>> detect({"question": "Is aspirin an NSAID?", "answer": "Yes.", "ward": "3"})
    'question_answer'
    """
    for name in DETECTED:
        if _fits(name, fields):
            return name
    keys = fields if isinstance(fields, Mapping) else ()
    known = {key for _, wanted in FORMATS.values() for key in wanted}
    typo = next((hint for key in keys if key not in known and (hint := nearest(str(key)[:24], known))), "")
    raise DataError(
        f"no known format fits {_keys(fields)}.{typo} Name its columns, data_columns=dict(input=..., output=...) or "
        "--input-column and --output-column, or a map function; `medtune list-dataset-format` lists them."
    )


def named_map_fn(spec: str | MapFn) -> MapFn:
    """The map function of a name, or the function itself.

    Raises:
        DataError: unknown name, or something else.
    """
    if isinstance(spec, str):
        name = spec.removesuffix("_map_fn")
        if name not in DATASET_FORMATS:
            raise DataError(
                f"unknown dataset_map_fn {spec!r}.{nearest(name, DATASET_FORMATS)} "
                "`medtune list-dataset-format` lists them all."
            )
        return DATASET_FORMATS[name]
    if not callable(spec):
        raise DataError(f"dataset_map_fn must be None, a format's name or a function, got a {type(spec).__name__}.")
    return spec


def resolve_map_fn(spec: str | MapFn | None, first: Row) -> MapFn:
    """Find the map function for a data file and check it against the file's first row.

    Args:
        spec: None to detect the format from `first`, a format's name ("alpaca" or "alpaca_map_fn"), or a function.
        first: the first row of the file.

    Raises:
        DataError: unknown name, or the function needs a key that the row has not; names the format that would fit.
    """
    if spec is None:
        try:
            return DATASET_FORMATS[detect(first.fields)]
        except DataError as fault:
            return _detect_by_header(first, fault)
    spec = named_map_fn(spec)
    try:
        spec(first.fields)
    except KeyError as fault:
        raise _misfit(spec, first, fault) from _silenced(fault)
    except Exception:  # a fault of this row alone is apply_map_fn's to report
        return spec
    return spec


# What people write above a table's columns -> the key that map functions read.
HEADERS = {
    **dict.fromkeys(("问题", "问", "提问", "ask"), "question"),
    **dict.fromkeys(("回答", "答案", "答"), "answer"),
    **{"指令": "instruction", "输入": "input", "输出": "output", "系统": "system"},
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


def _detect_by_header(first: Row, fault: DataError) -> MapFn:
    """The map function that fits the row once its headers are read as `plain_keys`, reading every row so."""
    try:
        map_fn = DATASET_FORMATS[detect(plain_keys(first.fields))]
    except DataError:
        raise DataError(f"{first.origin}: {fault}") from None

    @functools.wraps(map_fn)
    def of_plain_keys(fields: Fields) -> dict[str, Any]:
        return map_fn(plain_keys(fields))

    return of_plain_keys


def apply_map_fn(map_fn: MapFn, row: Row) -> Conversation:
    """Map one row and validate it; every fault becomes a DataError that names the row and never quotes it."""
    try:
        return to_conversation(map_fn(row.fields), row.origin)
    except MedtuneError:
        raise
    except KeyError as fault:
        raise _misfit(map_fn, row, fault) from _silenced(fault)
    except Exception as fault:
        raise DataError(
            f"{row.origin}: {_name(map_fn)} failed on {_keys(row.fields)} with {type(fault).__name__}. Fix the row or "
            "the map function (--debug shows the traceback)."
        ) from _silenced(fault)


def _silenced(fault: Exception) -> Exception:
    """The fault with its traceback, without its message and causes: they may quote the row."""
    fault.args = ()
    fault.__cause__ = fault.__context__ = None
    return fault


def _fits(name: str, fields: Any) -> bool:
    if not isinstance(fields, Mapping):
        return False
    if name == "prompt_response" and "completion" in fields:
        return "prompt" in fields
    if any(key not in fields for key in FORMATS[name][1]):
        return False
    if name == "oasst1":
        return isinstance(fields["text"], str) and fields["text"].lstrip().startswith("### Human:")
    if name == "pretrain":  # text beside an answer is a question under another name
        return not any(key in fields for key in ("answer", "output", "response"))
    if name == "msagent_react":
        return isinstance(fields["conversations"], str)
    return True


def _misfit(map_fn: MapFn, row: Row, fault: KeyError) -> DataError:
    missing = tuple(map(str, fault.args))
    wants = next((keys for fn, keys in FORMATS.values() if fn is map_fn), None)
    values = str(list(row.fields.values())) if isinstance(row.fields, Mapping) else str(row.fields)
    if wants is None and any(key in values for key in missing):  # a user's function that looked up what the row says
        return DataError(f"{row.origin}: {_name(map_fn)} failed on {_keys(row.fields)} with KeyError. Fix the row.")
    wants = wants or missing
    if isinstance(row.fields, Mapping) and all(key in row.fields for key in wants):
        return DataError(f"{row.origin}: {_name(map_fn)} misses the key {str(fault)[:40]} inside the row.")
    try:
        hint = f"{detect(row.fields)}_map_fn would fit."
    except DataError:
        hint = "Name the columns: data_columns=dict(input=..., output=...)."
    wanted = ", ".join(repr(key[:40]) for key in wants)
    return DataError(f"{row.origin}: {_name(map_fn)} wants {wanted}, got {_keys(row.fields)}. {hint}")


def _name(map_fn: MapFn) -> str:
    return getattr(map_fn, "__name__", type(map_fn).__name__)


def _keys(fields: Any) -> str:
    """Describe a row by its keys."""
    if not isinstance(fields, Mapping):
        return f"a {type(fields).__name__}"
    keys = [repr(key[:24]) for key in shown_names(fields)[:12]]
    if not keys:
        return f"a row whose {len(fields)} keys look like text (is the header missing?)"
    return f"a row with the keys {', '.join(keys)}{', ...' if len(fields) > 12 else ''}"

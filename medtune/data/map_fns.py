"""Map functions: one row of a data file in, one conversation or preference out; and which one a row needs.

The names and shapes are those of XTuner 0.1.23, plus the shapes medical data comes in. Each function is pure, takes
the row as a dict, ignores columns it does not know, and raises KeyError for one that it needs. The first line of each
docstring is the row's shape (`?` marks an optional key); `medtune list-dataset-format` prints it.

Only the formats XTuner tied to one subject (sql, arxiv, code_alpaca, ...) bring a system text of their own, and
`detect` never chooses those: a system text that nobody asked for would be trained on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from medtune.data.chat_map_fns import (
    alpaca_lists_map_fn,
    alpaca_map_fn,
    alpaca_zh_map_fn,
    content_map_fn,
    conversation_map_fn,
    default_map_fn,
    dialogue_map_fn,
    oasst1_map_fn,
    oasst1_pair_map_fn,
    openai_map_fn,
    openorca_map_fn,
    pretrain_map_fn,
    prompt_response_map_fn,
    question_answer_map_fn,
    sharegpt_map_fn,
    stack_exchange_map_fn,
    user_bot_map_fn,
    wizardlm_map_fn,
)
from medtune.data.choice_map_fns import (
    FROM_ZERO,
    ceval_map_fn,
    choices_map_fn,
    cmb_clin_map_fn,
    cmb_map_fn,
    medmcqa_from_zero_map_fn,
    medmcqa_map_fn,
    medqa_us_map_fn,
    mmlu_map_fn,
    pubmedqa_map_fn,
)
from medtune.data.detection import DETECTED, passes, plain_keys
from medtune.data.preference_map_fns import (
    alpaca_preference_map_fn,
    kto_map_fn,
    preference_map_fn,
    question_pair_map_fn,
    question_preference_map_fn,
    ranked_map_fn,
    scored_pair_map_fn,
    sharegpt_preference_map_fn,
)
from medtune.data.records import Record, Row, SkippedRow, shown_names, to_record
from medtune.data.subject_map_fns import (
    arxiv_map_fn,
    code_alpaca_map_fn,
    colors_map_fn,
    crime_kg_assitant_map_fn,
    law_reference_map_fn,
    medical_map_fn,
    msagent_react_map_fn,
    sql_map_fn,
    tiny_codes_map_fn,
)
from medtune.data.tool_map_fns import moss_map_fn
from medtune.data.turns import Fields
from medtune.errors import DataError, MedtuneError, nearest

MapFn = Callable[[Any], Any]

REASON = re.compile(r"[A-Za-z ,()-]{1,80}")  # what a report may quote of a row
NUM_HEAD_ROWS = 100
"""Rows of a file that `resolve_map_fn` should be shown."""


def chosen_map_fn(row: Fields) -> dict[str, Any]:
    """any preference or KTO row, its better answer alone: to train SFT on preference data; bad KTO rows are left out.

    >>> chosen_map_fn({"prompt": "Hi", "chosen": "Hello", "rejected": "What?"})
    {'messages': [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]}
    """
    raw = DATASET_FORMATS[detect(row)](row)
    tools = {"tools": raw["tools"]} if "tools" in raw else {}
    if "chosen" in raw:
        return {"messages": [*raw["prompt"], *raw["chosen"]], **tools}
    if "label" not in raw:
        raise DataError("chosen_map_fn: no preference or KTO row. Name another map function, or none to detect it.")
    if not raw["label"]:
        raise SkippedRow("the answer is labelled as a bad one")
    return {"messages": raw["messages"], **tools}


def left_out_map_fn(row: Fields) -> dict[str, Any]:
    """{"left_out"}: what a mix of data sets holds for a row with nothing to learn; counted by this reason.

    >>> left_out_map_fn({"left_out": "both answers are rated alike"})
    Traceback (most recent call last):
    medtune.data.records.SkippedRow: both answers are rated alike.
    """
    reason = str(row["left_out"])
    raise SkippedRow(reason if REASON.fullmatch(reason) else "nothing to learn")


# Name -> the function, and the keys it cannot do without. Formats that take one key or another name none.
FORMATS: dict[str, tuple[MapFn, tuple[str, ...]]] = {
    "alpaca": (alpaca_map_fn, ("instruction", "output")),
    "alpaca_lists": (alpaca_lists_map_fn, ("instruction", "output")),
    "alpaca_preference": (alpaca_preference_map_fn, ("instruction", "chosen", "rejected")),
    "alpaca_zh": (alpaca_zh_map_fn, ("instruction_zh", "output_zh")),
    "arxiv": (arxiv_map_fn, ("abstract", "title")),
    "ceval": (ceval_map_fn, ("A", "B", "C", "D")),
    "choices": (choices_map_fn, ("question", "choices", "answer")),
    "chosen": (chosen_map_fn, ()),
    "cmb": (cmb_map_fn, ("question", "option", "answer")),
    "cmb_clin": (cmb_clin_map_fn, ("description", "QA_pairs")),
    "code_alpaca": (code_alpaca_map_fn, ("prompt", "completion")),
    "colors": (colors_map_fn, ("description", "color")),
    "content": (content_map_fn, ("content",)),
    "conversation": (conversation_map_fn, ("conversation",)),
    "crime_kg_assitant": (crime_kg_assitant_map_fn, ("input", "output")),
    "default": (default_map_fn, ("input", "output")),
    "dialogue": (dialogue_map_fn, ()),
    "kto": (kto_map_fn, ()),
    "left_out": (left_out_map_fn, ("left_out",)),
    "law_reference": (law_reference_map_fn, ("question", "answer")),
    "medical": (medical_map_fn, ("instruction", "output")),
    "medmcqa": (medmcqa_map_fn, ("question", "opa", "opb", "opc", "opd")),
    "medmcqa_from_zero": (medmcqa_from_zero_map_fn, ("question", "opa", "opb", "opc", "opd")),
    "medqa_us": (medqa_us_map_fn, ("question", "options", "answer_idx")),
    "mmlu": (mmlu_map_fn, ("A", "B", "C", "D", "E", "F")),
    "moss": (moss_map_fn, ()),
    "msagent_react": (msagent_react_map_fn, ("conversations",)),
    "oasst1": (oasst1_map_fn, ("text",)),
    "oasst1_pair": (oasst1_pair_map_fn, ("input", "output")),
    "openai": (openai_map_fn, ("messages",)),
    "openorca": (openorca_map_fn, ("system_prompt", "question", "response")),
    "preference": (preference_map_fn, ("chosen", "rejected")),
    "pretrain": (pretrain_map_fn, ("text",)),
    "prompt_response": (prompt_response_map_fn, ("prompt",)),
    "pubmedqa": (pubmedqa_map_fn, ("QUESTION", "CONTEXTS", "LONG_ANSWER")),
    "question_answer": (question_answer_map_fn, ("question", "answer")),
    "question_pair": (question_pair_map_fn, ("question", "chosen", "rejected")),
    "question_preference": (question_preference_map_fn, ("question", "response_chosen", "response_rejected")),
    "ranked": (ranked_map_fn, ("instruction", "output")),
    "scored_pair": (scored_pair_map_fn, ("input", "output")),
    "sharegpt": (sharegpt_map_fn, ("conversations",)),
    "sharegpt_preference": (sharegpt_preference_map_fn, ("chosen", "rejected")),
    "sql": (sql_map_fn, ("context", "question", "answer")),
    "stack_exchange": (stack_exchange_map_fn, ("question", "response")),
    "tiny_codes": (tiny_codes_map_fn, ("prompt", "response")),
    "user_bot": (user_bot_map_fn, ("instruction", "output")),
    "wizardlm": (wizardlm_map_fn, ("conversations",)),
}
DATASET_FORMATS: dict[str, MapFn] = {name: fn for name, (fn, _) in FORMATS.items()}
ALIASES = {"crime_kg_assitan": "crime_kg_assitant"}  # XTuner's key of the mapping, and its function's name
IMAGES = ("llava", "llava_image_only")


@lru_cache(maxsize=256)
def _candidates(keys: tuple[Any, ...]) -> tuple[str, ...]:
    """Formats whose keys are all there."""
    return tuple(name for name in DETECTED if set(FORMATS[name][1]) <= set(keys))


def _fitting(fields: Any) -> str:
    """Name of the first format that fits a row, or ""."""
    if isinstance(fields, Mapping):
        return next((name for name in _candidates(tuple(fields)) if passes(name, fields)), "")
    return "dialogue" if isinstance(fields, list) and passes("dialogue", fields) else ""


def detect(fields: Any) -> str:
    """Return the name of the format that fits a row; its keys tell, and the kind of what they hold.

    Raises:
        DataError: none fits.

    >>> detect({"question": "Is aspirin an NSAID?", "answer": "Yes.", "ward": "3"})
    'question_answer'
    """
    if name := _fitting(fields):
        return name
    keys = fields if isinstance(fields, Mapping) else ()
    if {"file_name", "hf_hub_url", "script_url"} & set(keys):
        raise DataError("this is a registry of data sets: pass it as dataset_info, and as data_path one of its names.")
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
        name = ALIASES.get(name, name)
        if name in IMAGES:
            raise DataError(f"dataset_map_fn {spec!r} is for pictures; medtune trains on text alone.")
        if name not in DATASET_FORMATS:
            raise DataError(
                f"unknown dataset_map_fn {spec!r}.{nearest(name, DATASET_FORMATS)} "
                "`medtune list-dataset-format` lists them all."
            )
        return DATASET_FORMATS[name]
    if not callable(spec):
        raise DataError(f"dataset_map_fn must be None, a format's name or a function, got a {type(spec).__name__}.")
    return spec


class ByShape:
    """The map function of a file whose format nobody named: each row goes to the function that fits it.

    So a file of two schemas is read whole; `format_name` says which rows are which, for reports to count.

    Args:
        head: the first rows. They settle what one row cannot say: MedMCQA's `cop` counts from 0 if one of them is 0
            or -1, and from 1 otherwise; should a later row of such a file hold 0, it is refused.

    Raises:
        DataError: no format fits the first row.
    """

    def __init__(self, head: Sequence[Row]) -> None:
        self.from_zero = any(isinstance(row.fields, Mapping) and row.fields.get("cop") in FROM_ZERO for row in head)
        names = dict.fromkeys(self.name_of(row.fields) for row in head[:1])
        self.__name__ = "".join(f"{name}_map_fn" for name in names)
        self.__qualname__ = f"ByShape(from_zero={self.from_zero})"  # what a cache of results needs to know

    def name_of(self, fields: Any) -> str:
        """The format of a row."""
        return self._name_and_fields(fields)[0]

    def __call__(self, fields: Any) -> Any:
        """Map a row by the function of its format."""
        name, fields = self._name_and_fields(fields)
        return DATASET_FORMATS[name](fields)

    def _name_and_fields(self, fields: Any) -> tuple[str, Any]:
        name = _fitting(fields)
        if not name and (name := _fitting(plain := plain_keys(fields))):
            fields = plain
        name = name or detect(fields)  # which says why none fits
        return ("medmcqa_from_zero" if name == "medmcqa" and self.from_zero else name), fields


def resolve_map_fn(spec: str | MapFn | None, *head: Row) -> MapFn:
    """Find the map function for a data file and check it against the file's first row.

    Args:
        spec: None to detect each row's format, a format's name ("alpaca" or "alpaca_map_fn"), or a function.
        head: the first rows of the file: one, better `NUM_HEAD_ROWS`.

    Raises:
        DataError: unknown name, or the function needs a key that the row has not; names the format that would fit.
    """
    first = head[0]
    if spec is None:
        try:
            return ByShape(head)
        except DataError as fault:
            raise DataError(f"{first.origin}: {fault}") from None
    spec = named_map_fn(spec)
    try:
        spec(first.fields)
    except KeyError as fault:
        raise _misfit(spec, first, fault) from _silenced(fault)
    except Exception:  # a fault of this row alone is apply_map_fn's to report
        return spec
    return spec


def format_name(map_fn: MapFn, row: Row) -> str:
    """Name of the format that a map function reads a row by, for reports to count.

    Raises:
        DataError: no format fits the row.
    """
    if not isinstance(map_fn, ByShape):
        return _name(map_fn).removesuffix("_map_fn")
    try:
        return map_fn.name_of(row.fields)
    except DataError as fault:
        raise DataError(f"{row.origin}: {fault}") from None


def apply_map_fn(map_fn: MapFn, row: Row) -> Record:
    """Map one row and validate it.

    Raises:
        SkippedRow: a sound row with nothing to learn; whoever counts rows leaves it out.
        DataError: any other fault; it names the row and never quotes it.
    """
    try:
        raw = map_fn(row.fields)
    except SkippedRow as skipped:
        raise SkippedRow(skipped.reason, row.origin) from None
    except MedtuneError as fault:
        raise DataError(f"{row.origin}: {fault}") from fault
    except KeyError as fault:
        raise _misfit(map_fn, row, fault) from _silenced(fault)
    except Exception as fault:
        raise DataError(
            f"{row.origin}: {_name(map_fn)} failed on {_keys(row.fields)} with {type(fault).__name__}. Fix the row or "
            "the map function (--debug shows the traceback)."
        ) from _silenced(fault)
    return to_record(raw, row.origin)


def _silenced(fault: Exception) -> Exception:
    """The fault with its traceback, without its message and causes: they may quote the row."""
    fault.args = ()
    fault.__cause__ = fault.__context__ = None
    return fault


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

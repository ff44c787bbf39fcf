"""Rows in the shape of each data set that a built-in config trains on, written where the config looks for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medtune.data.catalog import PREFIX, named

QUESTION, ANSWER = "What is a fever?", "A body temperature of 38 degrees or more."
MOSS_TURN = {
    "Human": f"<|Human|>: {QUESTION}<eoh>\n",
    "Inner Thoughts": "<|Inner Thoughts|>: Look it up.<eot>\n",
    "Commands": '<|Commands|>: Search("fever")<eoc>\n',
    "Tool Responses": "<|Results|>:\n38 degrees<eor>\n",
    "MOSS": f"<|MOSS|>: {ANSWER}<eom>\n",
}
MESSAGES = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]

# Map function -> a row that it reads.
ROWS: dict[str | None, dict[str, Any]] = {
    None: {"chat": {"turn_1": MOSS_TURN}, "meta_instruction": "You can search."},
    "alpaca": {"instruction": "Answer truthfully.", "input": QUESTION, "output": ANSWER},
    "alpaca_zh": {"instruction_zh": "什么是发热？", "input_zh": "", "output_zh": "体温升高。"},
    "cmb": {"question": QUESTION, "option": {"A": "36 °C", "B": "38 °C"}, "answer": "B"},
    "default": {"input": QUESTION, "output": ANSWER},
    "moss": {"chat": {"turn_1": MOSS_TURN}, "meta_instruction": "You can search."},
    "msagent_react": {
        "conversations": str([{"from": "user", "value": QUESTION}, {"from": "assistant", "value": ANSWER}])
    },
    "oasst1": {"text": f"### Human: {QUESTION}### Assistant: {ANSWER}"},
    "openai": {"conversation": MESSAGES},
    "openorca": {"system_prompt": "Be brief.", "question": QUESTION, "response": ANSWER},
    "pretrain": {"text": ANSWER},
    "prompt_response": {"prompt": QUESTION, "response": ANSWER},
    "pubmedqa": {"QUESTION": QUESTION, "CONTEXTS": ["Text."], "LONG_ANSWER": ANSWER, "final_decision": "yes"},
    "question_answer": {"question": QUESTION, "answer": ANSWER},
    "question_preference": {"question": QUESTION, "response_chosen": ANSWER, "response_rejected": "No."},
    "ranked": {"instruction": QUESTION, "input": "", "output": [ANSWER, "No."]},
    "sharegpt": {"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]},
    "sharegpt_preference": {
        "conversations": [{"from": "human", "value": QUESTION}],
        "chosen": ANSWER,
        "rejected": "No.",
    },
    "stack_exchange": {"question": QUESTION, "response": ANSWER},
    "wizardlm": {"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]},
}
OWN_ROWS = {
    "answer-pairs": 30,
    "medical-documents": 44,
    "medication-labels": 40,
    "medication-pairs": 32,
    "medication-qa": 72,
    "self-cognition": 32,
}
"""Embedded data sets, and their numbers of rows."""


def with_rows(values: dict[str, Any], folder: Path, count: int = 4) -> tuple[Any, int]:
    """Write rows of the shape that a config's data has.

    Args:
        values: of the config.
        folder: where its data is to lie; it is also $MEDTUNE_DATA.
        count: of rows for each source.

    Returns:
        The data_path to set, and how many rows stand there.
    """
    data_path, map_fn = values["data_path"], values["dataset_map_fn"]
    if isinstance(data_path, list):
        sources = [item if isinstance(item, dict) else {"path": item} for item in data_path]
        paths = [
            {**source, "path": _write(folder / f"{i}.jsonl", ROWS[source.get("dataset_map_fn")], count)}
            for i, source in enumerate(sources)
        ]
        return paths, count * len(paths)
    if data_path in OWN_ROWS:
        return data_path, OWN_ROWS[data_path]
    if data_path.startswith(PREFIX):
        entry = named(data_path.removeprefix(PREFIX))
        row = ROWS[entry.map_fn]
        if entry.columns and entry.map_fn == "default":
            row = {column: row[field] for field, column in entry.columns.items()}
        _write(folder / f"{entry.name}.jsonl", row, count)
        return data_path, count
    if values["data_sheet"]:
        return _write_sheet(folder / "rows.xlsx", values["data_sheet"], count), count
    if values["data_columns"]:
        columns = values["data_columns"]
        return _write(folder / "rows.jsonl", {columns["input"]: QUESTION, columns["output"]: ANSWER}, count), count
    return _write(folder / "rows.jsonl", ROWS[map_fn], count), count


def _write(file: Path, row: dict[str, Any], count: int) -> str:
    file.write_text(f"{json.dumps(row, ensure_ascii=False)}\n" * count, encoding="utf-8")
    return str(file)


def _write_sheet(file: Path, sheet_name: str, count: int) -> str:
    from openpyxl import Workbook

    book = Workbook()
    sheet = book.create_sheet(sheet_name)
    for row in [["Question", "Focus", "Type", "Answer"]] + [[QUESTION, "", "", ANSWER]] * count:
        sheet.append(row)
    book.save(file)
    return str(file)

"""What the tests of `medtune migrate` share: migrate a text into a file, and load it on small data."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from medtune.config import Config, load
from medtune.config_text import assignments
from medtune.migrate.outcome import Outcome, config_text
from medtune.migrate.reading import read

OLD = Path(__file__).parent / "xtuner"
QUESTION, ANSWER = "What is a fever?", "A body temperature of 38 degrees or more."
TURNS = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]
ROWS: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": QUESTION, "input": "", "output": ANSWER},
    "alpaca_zh": {"instruction_zh": QUESTION, "input_zh": "", "output_zh": ANSWER},
    "arxiv": {"abstract": QUESTION, "title": ANSWER},
    "code_alpaca": {"prompt": QUESTION, "completion": ANSWER},
    "colors": {"description": f"Blue: {QUESTION}", "color": ANSWER},
    "moss": {"chat": {"turn_1": {"Human": QUESTION, "MOSS": ANSWER}}},
    "msagent_react": {
        "conversations": str([{"from": "user", "value": QUESTION}, {"from": "assistant", "value": ANSWER}])
    },
    "oasst1": {"text": f"### Human: {QUESTION}### Assistant: {ANSWER}"},
    "openorca": {"system_prompt": "", "question": QUESTION, "response": ANSWER},
    "preference": {"prompt": QUESTION, "chosen": ANSWER, "rejected": "A sort of soup."},
    "sql": {"context": "CREATE TABLE t (a INT)", "question": QUESTION, "answer": ANSWER},
    "stack_exchange": {"question": QUESTION, "response": ANSWER},
    "tiny_codes": {"prompt": QUESTION, "response": ANSWER},
    "wizardlm": {"conversations": TURNS},
    "ward_map_fn": {"ask": QUESTION, "reply": ANSWER},
}
WARD_MAPS = "def ward_map_fn(row):\n    return {'conversation': [{'input': row['ask'], 'output': row['reply']}]}\n"


def migrated(text: str, folder: Path, name: str = "old.py", origin: str | None = None) -> tuple[Outcome, Path]:
    """The outcome of a text, and the new config's file."""
    outcome = read(text, name, origin)
    new = folder / "new.py"
    new.write_text(config_text(outcome, "new.py", name), encoding="utf-8")
    (folder / "ward_maps.py").write_text(WARD_MAPS, encoding="utf-8")
    return outcome, new


def written(new: Path) -> dict[str, Any]:
    """The settings that a new config sets to plain values."""
    found = {}
    for name, place in assignments(new.read_text(encoding="utf-8")).items():
        try:
            found[name] = ast.literal_eval(place.value)
        except ValueError:
            found[name] = ast.unparse(place.value)
    return found


def load_small(new: Path, **settings: Any) -> Config:
    """The new config on the embedded model and a data file of four rows of its own shape."""
    told = written(new)
    named = told.get("dataset_map_fn")
    documents, pairs = told["_base_"] == "pt", told["_base_"] in ("dpo", "rm", "orpo", "simpo")
    row = (
        {"text": ANSWER * 8}
        if documents
        else ROWS["preference"]
        if pairs
        else ROWS.get(named or "alpaca", ROWS["alpaca"])
    )
    data = new.parent / "rows.jsonl"
    data.write_text(f"{json.dumps(row)}\n" * 4, encoding="utf-8")
    changes = {"pretrained_model_name_or_path": "med-llama-tiny", "data_path": str(data), **settings}
    if named in ROWS and named != "ward_map_fn":
        changes["dataset_map_fn"] = named
    if "val_data_path" in told:
        changes["val_data_path"] = str(data)
    if "optim_type" in told:
        changes["optim_type"] = "adamw"  # the paged ones want a GPU
    return load(str(new), [(name, str(value)) for name, value in changes.items()])

"""The README.md of an adapter or merged model: what it is, how it was made, and what it must not be used for."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

WHAT_IT_DOES = {
    False: "writes text that can be wrong, out of date or dangerous",
    True: "scores answers by what its raters liked, which is not what is right",
}
METHODS = {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA (LoRA on a quantised base)"}
STAGES = {
    "pt": "continued pre-training",
    "sft": "supervised fine-tuning",
    "rm": "a reward model, which scores answers, from pairs of them",
}
UNITS = {"rm": "pair"}


def model_card(record: dict[str, Any]) -> str:
    """Write a model card in Markdown with the front matter of the Hugging Face hub.

    Args:
        record: what `medtune.json` says. Paths are cut to their last part, so that no card carries a machine's
            folders; no row of the data is in it.
    """
    base = _public_name(record.get("base_model", {}).get("name_or_path"))
    method = record.get("method", "full")
    is_adapter = method != "full" and not record.get("merged")
    what = "An adapter for" if is_adapter else "A model made from"
    scores = record.get("stage") == "rm"
    lines = [*_front_matter(base, method, is_adapter, scores), ""]
    lines += [f"# {base}, fine-tuned with medtune", ""]
    lines += [f"{what} `{base}`: {STAGES.get(record.get('stage', 'sft'), record.get('stage'))}, "]
    lines[-1] += f"{METHODS.get(method, method)}{', merged into the base weights' if record.get('merged') else ''}."
    lines += ["", "## Not for diagnosis", ""]
    lines += [
        f"This model {WHAT_IT_DOES[scores]}. It is not a medical device and has not",
        "been evaluated for clinical use. Do not diagnose, prescribe or triage by it; a qualified professional must",
        "check whatever reaches a patient. Its licence follows from those of its base model and its training data.",
    ]
    lines += ["", "## How it was made", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _facts(record, base).items() if value not in (None, "")]
    if scores:
        lines += ["", "## Score an answer", "", "```python", *_score(base, is_adapter), "```", ""]
    else:
        lines += ["", "## Talk to it", "", "```", *_commands(base, is_adapter), "```", ""]
    if system := record.get("system"):
        lines += ["It was trained with this system text:", "", *(f"> {line}" for line in system.splitlines()), ""]
    return "\n".join(lines)


def _front_matter(base: str, method: str, is_adapter: bool, scores: bool) -> list[str]:
    """YAML for the hub; JSON strings are YAML strings, whatever is in them."""
    tags = ["medical", "medtune", *([method] if method != "full" else [])]
    return [
        "---",
        f"base_model: {json.dumps(base)}",
        f"library_name: {'peft' if is_adapter else 'transformers'}",
        f"pipeline_tag: {'text-classification' if scores else 'text-generation'}",
        f"tags: {json.dumps(tags)}",
        "---",
    ]


def _facts(record: dict[str, Any], base: str) -> dict[str, Any]:
    data, progress = record.get("data", {}), record.get("progress", {})
    fingerprint = record.get("base_model", {}).get("fingerprint")
    unit = UNITS.get(record.get("stage", "sft"), "token")
    return {
        "base model": f"`{base}`" + (f", fingerprint `{fingerprint[:16]}`" if fingerprint else ""),
        "data": f"`{_public_name(data['path'])}`" if data.get("path") else None,
        "samples": _number(data.get("num_samples")),
        "tokens": _number(data.get("num_tokens")),
        "tokens trained on": _number(data.get("num_trained_tokens")),
        "steps": _number(progress.get("step")),
        "epochs": _number(progress.get("epoch")),
        f"training loss per {unit}": _number(progress.get("loss")),
        f"validation loss per {unit}": _number(progress.get("val_loss")),
        "prompt template": record.get("prompt_template") or "the tokenizer's own chat template",
        "maximum length": _number(record.get("max_length")),
        "weights": record.get("torch_dtype"),
        "versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()),
        "medtune": record.get("medtune_version"),
    }


def _commands(base: str, is_adapter: bool) -> list[str]:
    if not is_adapter:
        return ["medtune chat ."]
    return [f"medtune chat {base} --adapter .", f"medtune convert merge {base} . ../merged"]


def _score(base: str, is_adapter: bool) -> list[str]:
    """Python that scores an answer by transformers alone, run in the folder of the card."""
    lines = ["from transformers import AutoModelForSequenceClassification, AutoTokenizer", ""]
    lines += ['tokenizer = AutoTokenizer.from_pretrained(".")']
    if is_adapter:
        name = f"AutoModelForSequenceClassification.from_pretrained({base!r}, num_labels=1)"
        lines = ["from peft import PeftModel", *lines, f'model = PeftModel.from_pretrained({name}, ".")']
    else:
        lines += ['model = AutoModelForSequenceClassification.from_pretrained(".")']
    return [
        *lines,
        'messages = [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]',
        'ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)',
        "print(model(**ids).logits.item())",
    ]


def _public_name(name: Any) -> str:
    """A hub id as it is; of a path only the last part."""
    text = str(name or "unknown").rstrip("/\\")
    is_hub_id = text.count("/") == 1 and not text.startswith((".", "/", "~"))
    return text if is_hub_id else PurePath(text.replace("\\", "/")).name


def _number(value: Any) -> str | None:
    if value is None:
        return None
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"

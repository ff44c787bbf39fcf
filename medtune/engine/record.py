"""`medtune.json`: what a run was, for whoever converts, merges or talks to its result."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from medtune import __version__
from medtune.config import Config
from medtune.data.pipeline import TrainingData
from medtune.data.templates import PROMPT_TEMPLATE
from medtune.models.identity import fingerprint
from medtune.models.load import model_folder
from medtune.models.stage import Stage


def base_model(config: Config) -> dict[str, Any]:
    """Name and fingerprint (`models.identity`) of the model that a config starts from.

    Raises:
        ModelError: no such model, or a damaged one.
    """
    llm = config.values["model"].get("llm") or {}
    name = str(llm.get("pretrained_model_name_or_path", ""))
    folder = model_folder(name, llm.get("revision")) if name else None
    return {"name_or_path": name, "fingerprint": fingerprint(folder) if folder else None}


def run_record(config: Config, data: TrainingData, model: Stage) -> dict[str, Any]:
    """Describe a run, but for its progress; the fields are those of docs/design/architecture.md."""
    node = config.values["model"]
    llm = node.get("llm") or {}
    dataset = config.values["train_dataset"]
    source = dataset["dataset"] if isinstance(dataset.get("dataset"), dict) else {}
    template = getattr(data.template, "name", None)
    encoded = data.report.encoded
    return {
        "medtune_version": __version__,
        "stage": model.stage,
        "method": "full" if node.get("lora") is None else "qlora" if llm.get("bits") else "lora",
        "base_model": base_model(config),
        "prompt_template": template if template in PROMPT_TEMPLATE else None,
        "system": str(dataset.get("system") or ""),
        "torch_dtype": str(model.saved_dtype).removeprefix("torch."),
        "max_length": dataset.get("max_length"),
        "data": {
            "path": str(source.get("data_path") or source.get("path") or ""),
            "fingerprint": data.fingerprint(),
            "num_samples": encoded.num_samples,
            "num_tokens": encoded.num_tokens,
            "num_trained_tokens": encoded.num_trained_tokens,
        },
        "versions": {package: version(package) for package in ("torch", "transformers", "peft", "mmengine")},
    }

"""The three configs of XTuner 0.1.9 with `framework = "huggingface"`: their settings are the arguments of a trainer."""

from __future__ import annotations

from typing import Any

from medtune.migrate.flags import Flags, translate
from medtune.migrate.old_config import Name, OldConfig
from medtune.migrate.outcome import Outcome
from medtune.migrate.parts import Part
from medtune.migrate.trainer import DIRECT, SILENT, TOLD, common


def as_model(old: OldConfig) -> dict[str, Any]:
    """The node of the model as the other configs have it: an llm and a lora in a stage."""
    name = Name("xtuner.model.SupervisedFinetune", "SupervisedFinetune")
    return {"type": name, "llm": old.values.get("model"), "lora": old.values.get("lora")}


def migrate_arguments(old: OldConfig, out: Outcome) -> None:
    """Read training_args, whose counts are optimizer steps already."""
    arguments = Part(old.values.get("training_args"), "training_args", out)
    flags = Flags(old.where, arguments.left)
    common(flags, out, lr=5e-5, epochs=3.0, batch_size=8, save_steps=500, logging_steps=500)
    translate(flags, out, DIRECT, TOLD, (*SILENT, "remove_unused_columns"))

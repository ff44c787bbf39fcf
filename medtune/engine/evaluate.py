"""A checkpoint measured on a config's validation data, without a Runner and without a file written."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from medtune.build import build
from medtune.config import Config
from medtune.convert import read_record
from medtune.engine import checkpoint
from medtune.engine.record import base_model
from medtune.engine.train import prepare_inputs
from medtune.engine.validation import count_characters, evaluate, metrics_of
from medtune.errors import ModelError, UsageError
from medtune.files import read_json
from medtune.models.stage import Stage


def evaluate_checkpoint(config: Config, folder: Path) -> dict[str, float]:
    """Metrics of a checkpoint, those that its training would have logged; see `validation.metrics_of`.

    Args:
        config: of the model and of the validation data: `val_data_path`, or `val_ratio` of the training data.
        folder: a checkpoint folder.

    Raises:
        UsageError: the config has no validation data, another base model, or trains other weights than the checkpoint
            holds.
        ModelError: the checkpoint is damaged, or no checkpoint.
        And as `prepare_inputs`, and whatever loading the model raises.
    """
    checkpoint.verify(folder)
    inputs = prepare_inputs(config)
    if inputs.val_data is None:
        raise UsageError("no validation data: set val_data_path=FILE, or val_ratio=0.1 for a part of data_path.")
    _require_same_base(config, folder)
    model = build(config.values["model"], inputs.memo)
    _load(model, folder)
    samples = inputs.val_data.dataset.samples  # type: ignore[attr-defined]
    return metrics_of(model, evaluate(model, inputs.val_data), count_characters(samples, inputs.tokenizer))


def _require_same_base(config: Config, folder: Path) -> None:
    """Weights trained on another base model would be measured on one that they do not fit, in silence."""
    trained_on, mine = read_record(folder).get("base_model", {}), base_model(config)
    if trained_on.get("fingerprint") != mine["fingerprint"]:
        raise UsageError(
            f"{folder}: trained on another base model ({trained_on.get('name_or_path')}) than the config's "
            f"({mine['name_or_path']}): the weights differ. Set pretrained_model_name_or_path to the one trained on."
        )


def _load(model: Stage, folder: Path) -> None:
    """Put a checkpoint's weights into the model, in fp32 where it was trained so."""
    trained = read_json(folder / "state.json").get("trained")
    unfit = f"{folder}: it holds other weights than this config trains. Use the config.py that lies in it."
    if trained != sorted(model.trainable_parameters()):
        raise UsageError(unfit)
    try:
        with safe_open(folder / "optimizer.safetensors", framework="pt") as stored:
            masters = {name: stored.get_tensor(name) for name in stored.keys() if name.startswith("master.")}  # noqa: SIM118
        model.load_pretrained(folder, masters)
    except SafetensorError as fault:
        raise ModelError(f"{folder}: its weights are damaged ({fault}); use another checkpoint.") from None
    except RuntimeError:  # another rank, or another size
        raise ModelError(unfit) from None

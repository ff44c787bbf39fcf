"""What a checkpoint holds of a training: taken as it stands, and put back bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from medtune.engine import checkpoint, distributed
from medtune.engine.identity import identity
from medtune.errors import ModelError, UsageError
from medtune.files import read_json, write_json

if TYPE_CHECKING:
    from medtune.engine.runner import MedtuneRunner

STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"


def snapshot(runner: MedtuneRunner, random_states: list[bytes], copy: bool) -> Callable[[Path], None]:
    """Take what a checkpoint holds; what is returned writes it into a folder.

    Args:
        runner: between two steps.
        random_states: of every rank.
        copy: take tensors that later steps do not change, so that the writing may happen meanwhile.
    """
    write_model = runner.model.snapshot(copy)
    names = {id(p): name for name, p in runner.model.trainable_parameters().items()}
    tensors, plain = checkpoint.optimizer_tensors(runner.optim_wrapper.optimizer, names, copy)
    card = {**runner.card, "progress": _progress_summary(runner)}
    state = {
        **identity(runner.config, runner.inputs, runner.card["base_model"]),
        "trained": sorted(runner.model.trainable_parameters()),
        "progress": runner.loop.progress.as_dict(),
        "optimizer": plain,
        "schedulers": [scheduler.state_dict() for scheduler in runner.param_schedulers],
        "scaler": runner.optim_wrapper.scaler.state_dict(),
        "metrics": runner.metrics,
        "hooks": {type(hook).__name__: hook.state_dict() for hook in runner.hooks if hasattr(hook, "state_dict")},
    }
    state = deepcopy(state) if copy else state

    def write(folder: Path) -> None:
        masters = write_model(folder)
        runner.inputs.tokenizer.save_pretrained(folder)
        (folder / "config.py").write_text(runner.config.text, encoding="utf-8")
        write_json(folder / "medtune.json", card)
        save_file({**tensors, **masters}, folder / OPTIMIZER)
        write_json(folder / STATE, state)
        checkpoint.save_random_states(folder, random_states)

    return write


def _progress_summary(runner: MedtuneRunner) -> dict[str, Any]:
    loop = runner.loop
    return {
        **loop.progress.as_dict(),
        "num_steps": loop.num_steps,
        "epoch": round(loop.fractional_epoch, 4),
        "loss": runner.metrics.get("loss"),
        "val_loss": runner.metrics.get("val_loss"),
    }


def restore(runner: MedtuneRunner, folder: Path) -> None:
    """Put back what a `snapshot` wrote into a folder that verified.

    Raises:
        UsageError: it holds other weights than this run trains.
        ModelError: medtune did not write its state.
    """
    state = read_json(folder / STATE)
    if state.get("trained") != sorted(runner.model.trainable_parameters()):
        raise UsageError(
            f"{folder}: it holds other trained weights than this config trains, which --resume-anyway cannot mend. "
            "Use the config.py that lies in it."
        )
    try:
        _restore(runner, folder, state)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as fault:
        if type(fault).__name__ == "OutOfMemoryError":
            raise
        raise ModelError(
            f"{folder}: its training state does not fit this run ({type(fault).__name__}); use another checkpoint."
        ) from fault


def _restore(runner: MedtuneRunner, folder: Path, state: dict[str, Any]) -> None:
    """Put everything back; whatever a state that medtune did not write makes of it is raised."""
    tensors = load_file(folder / OPTIMIZER)
    masters = {name: value for name, value in tensors.items() if name.startswith("master.")}
    runner.model.load_pretrained(folder, masters)
    checkpoint.load_optimizer(runner.optim_wrapper.optimizer, tensors, state["optimizer"])
    for scheduler, saved in zip(runner.param_schedulers, state["schedulers"], strict=True):
        scheduler.load_state_dict(saved)
    runner.optim_wrapper.scaler.load_state_dict(state["scaler"])
    for name in runner.loop.progress.as_dict():
        setattr(runner.loop.progress, name, int(state["progress"][name]))
    runner.metrics.update(state["metrics"])
    for hook in runner.hooks:
        if saved := state.get("hooks", {}).get(type(hook).__name__):
            hook.load_state_dict(saved)  # type: ignore[attr-defined]
    states = folder / f"rank_{distributed.rank():05d}.safetensors"
    if states.is_file():  # --resume-anyway may have brought more ranks than there were
        checkpoint.load_random_state(states)

"""The Runner: mmengine's, with medtune's train loop, checkpoints and signals."""

from __future__ import annotations

import itertools
import json
import os
import signal
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from medtune import __version__
from medtune.build import build
from medtune.config import Config
from medtune.data.collate import StepBatch
from medtune.data.pipeline import TrainingData
from medtune.engine import checkpoint
from medtune.engine.loops import TrainLoop
from medtune.errors import Interrupted, ModelError, Stopped, UsageError
from medtune.models.sft import SupervisedFinetune

# mmengine's default hooks that medtune replaces or has no use for: its own loop counts steps and times them.
WITHOUT = ("runtime_info", "timer", "sampler_seed", "param_scheduler", "logger", "checkpoint")

_run_numbers = itertools.count()


@dataclass(frozen=True)
class Inputs:
    """What training starts from, without a weight loaded."""

    tokenizer: Any
    """Saved with every checkpoint."""
    train_dataset: TrainingData
    train_data: DataLoader[StepBatch]
    """Of `train_dataset`, in optimizer steps."""
    val_data: DataLoader[StepBatch] | None
    memo: dict[int, Any]
    """What `build.build` has built so far, so that model and hooks share it."""


class MedtuneRunner(Runner):
    """Trains one config.

    Args:
        config: the config that ran; its text is saved beside the logs and in every checkpoint.
        model: the training stage, such as `SupervisedFinetune`.
        inputs: tokenizer and data.
        card: what `medtune.json` says of this run, besides its progress.
        work_dir: `work_dirs/NAME`.
    """

    model: SupervisedFinetune

    def __init__(
        self,
        config: Config,
        model: SupervisedFinetune,
        inputs: Inputs,
        card: dict[str, Any],
        work_dir: Path,
    ) -> None:
        values = config.values
        self.config = config
        self.inputs = inputs
        self.card = card
        self.metrics: dict[str, float] = {}
        self._signal: int | None = None
        hooks = build(values.get("default_hooks") or {}, inputs.memo)
        super().__init__(
            model=model,
            work_dir=str(work_dir),
            train_dataloader=inputs.train_data,
            train_cfg=values["train_cfg"],
            optim_wrapper=values["optim_wrapper"],
            default_hooks={**dict.fromkeys(WITHOUT), **hooks},
            custom_hooks=build(values.get("custom_hooks") or [], inputs.memo),
            randomness=values.get("randomness") or {"seed": 0},
            log_level=values.get("log_level") or "INFO",
            visualizer=values.get("visualizer"),
            experiment_name=f"{config.name}-{os.getpid()}-{next(_run_numbers)}",
            env_cfg={"cudnn_benchmark": False, "dist_cfg": {"backend": "nccl"}},
        )
        self._private_folders()

    # ------------------------------------------------------------ what mmengine would do otherwise

    def wrap_model(self, model_wrapper_cfg: Any, model: torch.nn.Module) -> torch.nn.Module:
        """Leave the model where it was loaded; mmengine would move all of it to one device."""
        return model

    def build_visualizer(self, visualizer: Any = None) -> Visualizer:
        """Scalars go to `vis_data/`; a Visualizer of this run's own, since mmengine's is shared by name."""
        node = dict(visualizer or {})
        backends = [dict(b) for b in node.get("vis_backends") or [{"type": "LocalVisBackend"}]]  # mmengine edits them
        return Visualizer(name=self.experiment_name, vis_backends=backends, save_dir=self._log_dir)

    def dump_config(self) -> None:
        """Save the text that ran, in the work dir and beside the scalars; mmengine's dump fails on functions."""
        for file in (self.folder / f"{self.config.name}.py", self.vis_dir / "config.py"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.config.text, encoding="utf-8")

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        names = ("torch", "transformers", "peft", "mmengine")
        versions = ", ".join(f"{name} {version(name)}" for name in names)
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
        seed = self._randomness_cfg.get("seed")
        self.logger.info(f"medtune {__version__} ({versions}), {gpu}, {torch.get_num_threads()} threads, seed {seed}")

    def get_hooks_info(self) -> str:
        """One line; mmengine prints a table for each of its 22 mount points."""
        return ", ".join(type(hook).__name__ for hook in self.hooks)

    # ------------------------------------------------------------ places

    @property
    def folder(self) -> Path:
        """`work_dirs/NAME`."""
        return Path(self.work_dir)

    @property
    def vis_dir(self) -> Path:
        """`work_dirs/NAME/<timestamp>/vis_data`."""
        return Path(self.log_dir) / "vis_data"

    @property
    def loop(self) -> TrainLoop:
        """The train loop."""
        return self._train_loop  # type: ignore[return-value]

    def _private_folders(self) -> None:
        """A run's folder may hold patients' text (sample generations, a system text): its owner's eyes only."""
        for folder in (self.folder, Path(self.log_dir), self.vis_dir):
            folder.chmod(0o700)

    # ------------------------------------------------------------ training

    def prepare(self) -> None:
        """Build the loop, the optimizer and the schedule."""
        values = self.config.values
        loop = {key: value for key, value in values["train_cfg"].items() if key != "type"}
        self._train_loop = values["train_cfg"]["type"](runner=self, dataloader=self._train_dataloader, **loop)
        wrapper = values["optim_wrapper"]
        parameters = list(self.model.trainable_parameters().values())
        optimizer = build({**wrapper["optimizer"], "params": parameters})
        self.optim_wrapper = build({**wrapper, "optimizer": optimizer})
        nodes = values.get("param_scheduler") or []
        nodes = nodes if isinstance(nodes, list) else [nodes]
        self.param_schedulers = [
            build({**node, "optimizer": optimizer, "num_steps": self.loop.num_steps}) for node in nodes
        ]

    def train(self) -> torch.nn.Module:
        """Train, after `prepare` and perhaps `resume`."""
        previous = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
        try:
            self.call_hook("before_run")
            model = self.loop.run()
            self.call_hook("after_run")
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        return model

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signal = number
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
        self.logger.warning(f"{signal.Signals(number).name}: finishing this step and saving; once more stops at once")

    def raise_if_stopped(self) -> None:
        """After a step: if a signal came, save and stop.

        Raises:
            Stopped: exit code 75. Interrupted: 130, for Ctrl-C.
        """
        if self._signal is None:
            return
        saved = self.save_checkpoint(self.work_dir, f"iter_{self.loop.iter}.pth")
        kind = Interrupted if self._signal == signal.SIGINT else Stopped
        raise kind(f"stopped at step {self.loop.iter}; saved {saved}. Continue with --resume auto.")

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call a mount point of all hooks; mmengine's own hides where a TypeError inside a hook came from."""
        for hook in self._hooks:
            if hasattr(hook, fn_name):
                getattr(hook, fn_name)(self, **kwargs)

    # ------------------------------------------------------------ checkpoints

    def save_checkpoint(self, out_dir: str, filename: str, **_: Any) -> Path:  # type: ignore[override]
        """Save everything at `out_dir/filename`, a folder, and point `last_checkpoint` to it."""
        folder = Path(out_dir) / filename
        checkpoint.write_folder(folder, self._write_checkpoint)
        checkpoint.point_last_to(folder)
        self.logger.info(f"saved {folder.name}")
        return folder

    def _write_checkpoint(self, folder: Path) -> None:
        masters = self.model.save_pretrained(folder)
        self.inputs.tokenizer.save_pretrained(folder)
        (folder / "config.py").write_text(self.config.text, encoding="utf-8")
        checkpoint.write_json(folder / "medtune.json", {**self.card, "progress": self._progress_summary()})
        names = {id(p): name for name, p in self.model.trainable_parameters().items()}
        tensors, plain = checkpoint.optimizer_tensors(self.optim_wrapper.optimizer, names)
        save_file({**tensors, **masters}, folder / "optimizer.safetensors")
        state = {
            **self._identity(),
            "progress": self.loop.progress.as_dict(),
            "optimizer": plain,
            "schedulers": [scheduler.state_dict() for scheduler in self.param_schedulers],
            "scaler": self.optim_wrapper.scaler.state_dict(),
            "metrics": self.metrics,
        }
        checkpoint.write_json(folder / "state.json", state)
        checkpoint.save_random_state(folder / "rank_00000.safetensors")

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a resumed run to give the same numbers."""
        sampler = self.loop.sampler
        return {
            "data": self.inputs.train_dataset.fingerprint(),
            "base_model": self.card["base_model"].get("fingerprint"),
            "packs_per_step": sampler.packs_per_step,
            "world_size": sampler.world_size,
            "seed": sampler.seed,
            "num_steps": self.loop.num_steps,
            "optimizer_settings": json.dumps(self.optim_wrapper.optimizer.defaults, default=str),
            "trained": sorted(self.model.trainable_parameters()),
        }

    def _progress_summary(self) -> dict[str, Any]:
        loop = self.loop
        return {
            **loop.progress.as_dict(),
            "num_steps": loop.num_steps,
            "epoch": round(loop.fractional_epoch, 4),
            "loss": self.metrics.get("loss"),
            "val_loss": self.metrics.get("val_loss"),
        }

    def resume(self, filename: str | Path, anyway: bool = False, **_: Any) -> None:  # type: ignore[override]
        """Continue from a checkpoint folder, bit for bit.

        Raises:
            ModelError: it is damaged, or not a checkpoint.
            UsageError: data, base model, batch, optimizer or trained weights differ from this run's. With `anyway`
                only other trained weights are refused; the optimizer's settings are then the checkpoint's.
        """
        folder = Path(filename)
        checkpoint.verify(folder)
        state = json.loads((folder / "state.json").read_text())
        differing = [key for key, mine in self._identity().items() if state.get(key) != mine]
        if differing and not (anyway and "trained" not in differing):
            raise UsageError(
                f"{folder}: saved by a run that differs in {', '.join(differing)}, so it would not give the same "
                "numbers. Use the config and data it was saved with, or --resume-anyway."
            )
        tensors = load_file(folder / "optimizer.safetensors")
        masters = {name: value for name, value in tensors.items() if name.startswith("master.")}
        self.model.load_pretrained(folder, masters)
        checkpoint.load_optimizer(self.optim_wrapper.optimizer, tensors, state["optimizer"])
        for scheduler, saved in zip(self.param_schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(saved)
        self.optim_wrapper.scaler.load_state_dict(state["scaler"])
        for name, value in state["progress"].items():
            setattr(self.loop.progress, name, value)
        self.metrics.update(state["metrics"])
        checkpoint.load_random_state(folder / "rank_00000.safetensors")
        self.logger.info(f"resumed from {folder.name} at step {self.loop.iter} of {self.loop.num_steps}")

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> Any:
        """Not offered: mmengine's loader unpickles what it is given."""
        raise ModelError("use --resume with a checkpoint folder; .pth files of mmengine are not loaded here.")

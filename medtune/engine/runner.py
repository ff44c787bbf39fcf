"""The Runner: mmengine's, with medtune's train loop, checkpoints and signals."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.logging.logger import MMFormatter
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch.utils.data import DataLoader

from medtune import __version__
from medtune.build import build, only_accepted
from medtune.compat import without_hook_list
from medtune.config import Config
from medtune.data.collate import StepBatch
from medtune.data.pipeline import TrainingData
from medtune.engine import checkpoint, distributed, signals, state
from medtune.engine.loops import TrainLoop
from medtune.engine.saving import Saver
from medtune.errors import Interrupted, MedtuneError, ModelError, Stopped
from medtune.models.stage import Stage

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

    model: Stage

    def __init__(
        self,
        config: Config,
        model: Stage,
        inputs: Inputs,
        card: dict[str, Any],
        work_dir: Path,
    ) -> None:
        values = config.values
        self.config = config
        self.inputs = inputs
        self.card = card
        self.metrics: dict[str, float] = {}
        inputs.train_data.worker_init_fn = signals.ignore
        self.best_step = -1  # set by ValidationHook, read by CheckpointHook
        self.resumed_from: Path | None = None
        self._signal: int | None = None
        self.saver = Saver()
        self.saved_step = -1
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
        node = build(visualizer or {})
        backends = [dict(b) for b in node.get("vis_backends") or [{"type": "LocalVisBackend"}]]  # mmengine edits them
        return Visualizer(name=self.experiment_name, vis_backends=backends, save_dir=self._log_dir)

    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs: Any) -> MMLogger:
        """Every rank logs the same lines; those of ranks other than 0 go where `distributed.log_to` sent them."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        without_hook_list(logger)
        if not distributed.is_main():
            for handler in logger.handlers:
                handler.setLevel(log_level)
                handler.setFormatter(MMFormatter(color=False))
        return logger

    def dump_config(self) -> None:
        """Save the text that ran, in the work dir and beside the scalars; mmengine's dump fails on functions."""
        if not distributed.is_main():
            return
        for file in (self.folder / f"{self.config.name}.py", self.vis_dir / "config.py"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)  # a link in a folder from elsewhere would lead the writing out of it
            file.write_text(self.config.text, encoding="utf-8")

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        names = ("torch", "transformers", "peft", "mmengine")
        versions = ", ".join(f"{name} {version(name)}" for name in names)
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
        seed = self._randomness_cfg.get("seed")
        self.logger.info(f"medtune {__version__} ({versions}), {gpu}, {torch.get_num_threads()} threads, seed {seed}")

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

    @contextmanager
    def forgotten_on_fault(self) -> Iterator[None]:
        """Around what comes before the first step: a fault, told on the terminal, leaves no timestamp folder behind."""
        try:
            yield
        except MedtuneError:
            if distributed.is_main():
                for handler in [h for h in self.logger.handlers if isinstance(h, logging.FileHandler)]:
                    self.logger.removeHandler(handler)
                    handler.close()
                shutil.rmtree(self.log_dir)
            raise

    def _private_folders(self) -> None:
        """A run's folder may hold patients' text (sample generations, a system text): its owner's eyes only."""
        if distributed.is_main():
            for folder in (Path(self.log_dir), self.vis_dir):
                folder.chmod(0o700)

    # ------------------------------------------------------------ training

    def prepare(self) -> None:
        """Build the loop, the optimizer and the schedule."""
        values = self.config.values
        loop = {key: value for key, value in values["train_cfg"].items() if key != "type"}
        self._train_loop = values["train_cfg"]["type"](runner=self, dataloader=self._train_dataloader, **loop)
        wrapper = values["optim_wrapper"]
        parameters = list(self.model.trainable_parameters().items())
        optimizer = build({**wrapper["optimizer"], "params": parameters})
        self.optim_wrapper = build({**wrapper, "optimizer": optimizer})
        nodes = values.get("param_scheduler") or []
        nodes = nodes if isinstance(nodes, list) else [nodes]
        self.param_schedulers = [
            build({**node, **only_accepted(node, optimizer=optimizer, num_steps=self.loop.num_steps)}) for node in nodes
        ]

    def train(self) -> torch.nn.Module:
        """Train, after `prepare` and perhaps `resume`."""
        with signals.handled_by(self._on_signal):
            try:
                self.call_hook("before_run")
                model = self.loop.run()
                self.call_hook("after_run")
                self.saver.wait()
            finally:
                self.saver.join()
                self.call_hook("close")
        return model

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signal = number
        signals.next_at_once()
        self.logger.warning(f"{signal.Signals(number).name}: finishing this step and saving; once more stops at once")

    @property
    def signals(self) -> tuple[int, int]:
        """Of this process so far: 1 for Ctrl-C, 1 for another signal that asks for a stop."""
        return int(self._signal == signal.SIGINT), int(self._signal not in (None, signal.SIGINT))

    def raise_if_stopped(self) -> None:
        """After a step: if a signal came, save and stop.

        Raises:
            Stopped: exit code 75. Interrupted: 130, for Ctrl-C.
        """
        together = distributed.world_size() > 1  # then all stop where all know of it: a signal reaches them one by one
        interrupted, stopped = self.loop.signals if together else self.signals
        if not (interrupted or stopped):
            return
        if self.loop.ended:  # what is left is done sooner than begun again
            return
        if self.saved_step != self.loop.iter:
            self.save_checkpoint(self.work_dir, f"iter_{self.loop.iter}.pth")
        self.saver.wait()
        distributed.barrier()  # else a rank that ends early would have its launcher end one that still saves
        kind = Interrupted if interrupted else Stopped
        saved = checkpoint.find_checkpoints(self.folder)[0]
        raise kind(f"stopped at step {self.loop.iter}; saved {saved}. Continue with --resume auto.")

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call a mount point of all hooks; mmengine's own hides where a TypeError inside a hook came from."""
        for hook in self._hooks:
            if hasattr(hook, fn_name):
                getattr(hook, fn_name)(self, **kwargs)

    # ------------------------------------------------------------ checkpoints

    def save_checkpoint(  # type: ignore[override]
        self, out_dir: str, filename: str, then: Callable[[Path], None] | None = None, **_: Any
    ) -> Path:
        """Save everything at `out_dir/filename`, a folder, and point `last_checkpoint` to it.

        With `saver.in_background` that happens while training goes on, from a copy of its state on the CPU.

        Args:
            out_dir: the run's folder.
            filename: `epoch_1.pth` or `iter_500.pth`.
            then: called with the folder once it is complete.

        Raises:
            EnvironmentFault: too little disk, or a fault of it; in the background, of the save before.
        """
        folder = Path(out_dir) / filename
        random_states = distributed.gather(checkpoint.random_state())
        with distributed.together():  # rank 0 saves; the others wait, and share its fault
            if distributed.is_main():
                self._save(folder, random_states, then)
        self.saved_step = self.loop.iter
        return folder

    def _save(self, folder: Path, random_states: list[bytes], then: Callable[[Path], None] | None) -> None:
        self.saver.wait()
        checkpoint.require_room(folder)
        write = state.snapshot(self, random_states, copy=self.saver.in_background)

        def save() -> None:
            with checkpoint.disk_faults(folder):
                checkpoint.write_folder(folder, write)
                checkpoint.point_last_to(folder)
            self.logger.info(f"saved {folder.name}")
            if then is not None:
                then(folder)

        self.saver.run(save)

    def rehearse_save(self) -> None:
        """Write a checkpoint and remove it, so that a disk or a model that cannot be saved is found out at once.

        It has a name that `checkpoint.clear_leftovers` removes if the process is killed meanwhile.
        """
        folder = self.folder / checkpoint.REHEARSAL
        random_states = distributed.gather(checkpoint.random_state())
        with distributed.together(), checkpoint.disk_faults(folder):
            if distributed.is_main():
                checkpoint.write_folder(folder, state.snapshot(self, random_states, copy=False))
                shutil.rmtree(folder)

    def resume(self, filename: str | Path, **_: Any) -> None:  # type: ignore[override]
        """Continue from a checkpoint folder that verified (`resume.find`), bit for bit.

        Raises:
            UsageError, ModelError: as `state.restore`.
        """
        folder = Path(filename)
        state.restore(self, folder)
        self.resumed_from = folder
        self.logger.info(f"resumed from {folder.name} at step {self.loop.iter} of {self.loop.num_steps}")

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> Any:
        """Not offered: mmengine's loader unpickles what it is given."""
        raise ModelError("use --resume with a checkpoint folder; .pth files of mmengine are not loaded here.")

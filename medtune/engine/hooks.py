"""Hooks: what happens around the training steps. They read `StepResult`s and never change the numbers."""

from __future__ import annotations

import datetime
import resource
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.hooks import Hook

from medtune.build import Count
from medtune.compat import logs_above_bar
from medtune.engine import checkpoint, distributed
from medtune.engine.loops import StepResult
from medtune.files import write_json

if TYPE_CHECKING:
    from medtune.engine.runner import MedtuneRunner
    from medtune.models.stage import Stage


class LoggerHook(Hook):
    """Writes one line, and one record of scalars, every `interval` optimizer steps.

    `loss` is the mean over the units of those steps (SFT: trained tokens), `tokens_per_sec` counts all their tokens,
    `time` is seconds for a step, `memory` MB (peak on the GPU, else of the process).

    Args:
        interval: optimizer steps between two lines.
        log_first_step: also after the first step.

    At the end it writes `train_results.json`: sums and means over the whole training, restarts included.
    """

    priority = "BELOW_NORMAL"

    def __init__(self, interval: Count = 10, log_first_step: bool = True) -> None:
        self.interval = interval
        self.log_first_step = log_first_step
        self.window = Sums()
        self.total = Sums()
        self.latest: StepResult | None = None

    def after_train_iter(self, runner: MedtuneRunner, batch_idx: int, data_batch: Any, outputs: Any) -> None:  # type: ignore[override]
        """Keep the step; write when the interval is full. Only then is the device waited for."""
        self.latest = outputs
        self.window.add(outputs)
        self.total.add(outputs)
        step, last = runner.loop.iter, runner.loop.num_steps
        if step % self.interval == 0 or step == last or (step == 1 and self.log_first_step):
            self._write(runner, outputs)

    def _write(self, runner: MedtuneRunner, latest: StepResult) -> None:
        loop, window = runner.loop, self.window
        self.window = Sums()
        metrics = window.metrics(runner.model)
        scalars = {
            "lr": latest.lr,
            **metrics,
            "grad_norm": float(latest.grad_norm),
            "time": window.seconds / window.num_steps,
            "data_time": window.data_seconds / window.num_steps,
            "tokens_per_sec": window.num_tokens / max(window.seconds, 1e-9),
            "memory": peak_memory_mb(),
            "epoch": round(loop.fractional_epoch, 4),
            "tokens": loop.progress.num_tokens,
            "samples": loop.progress.num_samples,
        }
        runner.metrics["loss"] = scalars["loss"]
        shown = "  ".join(f"{name}: {scalars[name]:.4f}" for name in metrics)
        width = len(str(loop.num_steps))
        left = datetime.timedelta(seconds=int(scalars["time"] * (loop.num_steps - loop.iter)))
        runner.logger.info(
            f"Iter(train) [{loop.iter:{width}}/{loop.num_steps}]  lr: {scalars['lr']:.4e}  eta: {left}  "
            f"time: {scalars['time']:.4f}  data_time: {scalars['data_time']:.4f}  memory: {scalars['memory']}  "
            f"{shown}  grad_norm: {scalars['grad_norm']:.4f}  "
            f"tokens_per_sec: {scalars['tokens_per_sec']:.0f}  epoch: {scalars['epoch']:.2f}  "
            f"tokens: {scalars['tokens']}  samples: {scalars['samples']}"
        )
        runner.visualizer.add_scalars(scalars, step=loop.iter, file_path=f"{runner.timestamp}.json")

    def after_val_epoch(self, runner: MedtuneRunner, metrics: dict[str, float] | None = None) -> None:  # type: ignore[override]
        """Write the validation's metrics."""
        metrics = metrics or {}
        loop = runner.loop
        told = "  ".join(f"{k}: {v:.4f}" for k, v in metrics.items() if k != "val_tokens")
        runner.logger.info(f"Iter(val) [{loop.iter}/{loop.num_steps}]  {told}")
        scalars = {**metrics, "epoch": round(loop.fractional_epoch, 4)}
        runner.visualizer.add_scalars(scalars, step=loop.iter, file_path=f"{runner.timestamp}.json")

    def after_train(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Write what an early stop left unwritten, and `train_results.json`."""
        if self.latest is not None and self.window.num_steps:
            self._write(runner, self.latest)
        total, progress = self.total, runner.loop.progress
        results = {
            **total.metrics(runner.model),
            "steps": progress.step,
            "skipped_steps": progress.num_skipped,
            "epochs": round(runner.loop.fractional_epoch, 4),
            "tokens": progress.num_tokens,
            f"trained_{runner.model.units}": progress.num_units,
            "samples": progress.num_samples,
            "seconds": round(total.seconds, 3),
            "tokens_per_sec": round(total.num_tokens / max(total.seconds, 1e-9), 3),
        }
        if distributed.is_main():
            write_json(Path(runner.work_dir) / "train_results.json", results)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know, as plain values: an interval may be half full."""
        return {"window": self.window.as_dict(), "total": self.total.as_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.window, self.total = Sums(**state["window"]), Sums(**state["total"])


@dataclass
class Sums:
    """Sums over optimizer steps. `loss_sum` and `logs` stay on the device until they are read."""

    loss_sum: torch.Tensor | float = 0.0
    logs: dict[str, torch.Tensor | float] = field(default_factory=dict)
    num_steps: int = 0
    num_units: int = 0
    num_tokens: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0

    def add(self, step: StepResult) -> None:
        """Add one step."""
        self.loss_sum = self.loss_sum + step.loss_sum.double()
        self.logs = {name: self.logs.get(name, 0.0) + value.double() for name, value in step.logs.items()}
        self.num_steps += 1
        self.num_units += step.num_units
        self.num_tokens += step.num_tokens
        self.seconds += step.seconds
        self.data_seconds += step.data_seconds

    def as_dict(self) -> dict[str, float]:
        """Plain numbers; reading the loss waits for the device."""
        logs = {name: float(value) for name, value in self.logs.items()}
        return {**vars(self), "loss_sum": float(self.loss_sum), "logs": logs}

    def metrics(self, model: Stage) -> dict[str, float]:
        """The loss for a unit, and what the stage makes of its logs, if it has any while training."""
        num_units = max(self.num_units, 1)
        loss = float(self.loss_sum) / num_units
        means = {name: float(value) / num_units for name, value in self.logs.items()}
        return model.metrics(loss, means) if model.train_logs else {"loss": loss}


def peak_memory_mb() -> int:
    """Peak memory so far in MB: allocated on the GPU, or resident in this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    unit = 1 if sys.platform == "darwin" else 1024
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit) >> 20


class CheckpointHook(Hook):
    """Saves after each epoch (`epoch_1.pth`), or every `save_steps` steps (`iter_500.pth`), and at the end.

    A step that `ValidationHook` finds the best so far is saved too, and `best_checkpoint` names it.

    Args:
        save_steps: optimizer steps between checkpoints; None is after each epoch.
        save_total_limit: checkpoints kept; older ones go once the new one is verified. None keeps all. The best one is
            kept beside them.
        async_save: copy the training's state and write it while training goes on, one checkpoint at a time. A fault
            of that ends the training after the next step. The copy takes as much memory as the checkpoint.
    """

    priority = "VERY_LOW"

    def __init__(
        self, save_steps: Count | None = None, save_total_limit: Count | None = None, async_save: bool = False
    ) -> None:
        self.save_steps = save_steps
        self.save_total_limit = save_total_limit
        self.async_save = async_save
        self.last_saved = -1
        self.last_folder = Path()

    def before_train(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Do what was left to do after the last save, if the run was killed between the two."""
        runner.saver.in_background = self.async_save
        folder = runner.resumed_from
        is_here = folder and folder.resolve().parent == runner.folder.resolve() and distributed.is_main()
        if folder and is_here:
            self._tidy(runner, folder, runner.best_step == runner.loop.iter)

    def after_train_iter(self, runner: MedtuneRunner, batch_idx: int, data_batch: Any, outputs: Any) -> None:  # type: ignore[override]
        """Save at the interval, and the best step; a best one that ends an epoch is saved under the epoch's name."""
        runner.saver.check()
        step, loop = runner.loop.iter, runner.loop
        ends_epoch = not self.save_steps and loop.progress.step_in_epoch == loop.steps_per_epoch
        if (self.save_steps and step % self.save_steps == 0) or (runner.best_step == step and not ends_epoch):
            self._save(runner, f"iter_{step}.pth")

    def after_train_epoch(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Save after an epoch that is complete."""
        if not self.save_steps and runner.loop.progress.step_in_epoch == 0:
            self._save(runner, f"epoch_{runner.loop.epoch}.pth")
        elif runner.best_step == runner.loop.iter:
            self._save(runner, f"iter_{runner.loop.iter}.pth")

    def after_train(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Save the end, if nothing has."""
        self._save(runner, f"iter_{runner.loop.iter}.pth")

    def _save(self, runner: MedtuneRunner, name: str) -> None:
        """Save this step under `name`, unless it is saved; name it the best if it is; remove what is over the limit."""
        is_best = runner.best_step == runner.loop.iter

        def then(saved: Path) -> None:
            self._tidy(runner, saved, is_best)

        if self.last_saved == runner.loop.iter:
            if distributed.is_main():
                runner.saver.run(lambda: then(self.last_folder))
            return
        self.last_folder = runner.save_checkpoint(runner.work_dir, name, then)
        self.last_saved = runner.loop.iter

    def _tidy(self, runner: MedtuneRunner, saved: Path, is_best: bool) -> None:
        if is_best:
            checkpoint.point_last_to(saved, checkpoint.BEST)
        if self.save_total_limit:
            best = checkpoint.best_of(runner.folder)
            spare = [best.name] if best else []
            for folder in checkpoint.remove_surplus(saved, self.save_total_limit, spare, runner.logger.warning):
                runner.logger.info(f"removed {folder.name} (save_total_limit={self.save_total_limit})")


class DatasetInfoHook(Hook):
    """Logs what became of the data set's rows: counts and places, never text."""

    def before_run(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Log the report."""
        for line in runner.inputs.train_dataset.report.lines():
            runner.logger.info(f"data: {line}")


class ProgressBarHook(Hook):
    """A bar with the time left, on a terminal only; log lines scroll above it."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.bar: Any = None

    def before_train(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Open the bar."""
        if not sys.stderr.isatty():
            return
        from tqdm import tqdm

        self.stack.enter_context(logs_above_bar(runner.logger))
        self.bar = tqdm(total=runner.loop.num_steps, initial=runner.loop.iter, unit="step", dynamic_ncols=True)
        self.stack.callback(self.bar.close)

    def after_train_iter(self, runner: MedtuneRunner, batch_idx: int, data_batch: Any, outputs: Any) -> None:  # type: ignore[override]
        """Move it by one step."""
        if self.bar is not None:
            self.bar.update()

    def after_train(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Close it."""
        self.close(runner)

    def close(self, runner: MedtuneRunner) -> None:
        """Close it, also when a fault or a signal ends the training: the fault's line comes below it."""
        self.stack.close()


class LossPlotHook(Hook):
    """Draws `loss.png` in the work dir after each epoch and at the end: training and validation loss, learning rate."""

    priority = "LOWEST"

    def after_train_epoch(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Draw."""
        from medtune.engine.plot import plot_loss

        if distributed.is_main():
            plot_loss(runner.folder, Path(runner.work_dir) / "loss.png")

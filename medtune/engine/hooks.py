"""Hooks: what happens around the training steps. They read `StepResult`s and never change the numbers."""

from __future__ import annotations

import datetime
import resource
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.hooks import Hook

from medtune.build import Count
from medtune.data.encode import encode_prompt
from medtune.data.records import Message
from medtune.data.templates import Template, resolve_template
from medtune.engine import checkpoint
from medtune.engine.loops import StepResult

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from medtune.engine.runner import MedtuneRunner


class LoggerHook(Hook):
    """Writes one line, and one record of scalars, every `interval` optimizer steps.

    `loss` is the mean over the trained tokens of those steps, `tokens_per_sec` counts all their tokens, `time` is
    seconds for a step, `memory` MB (peak on the GPU, else of the process).

    Args:
        interval: optimizer steps between two lines.
        log_first_step: also after the first step.
    """

    priority = "BELOW_NORMAL"

    def __init__(self, interval: Count = 10, log_first_step: bool = True) -> None:
        self.interval = interval
        self.log_first_step = log_first_step
        self.window: list[StepResult] = []

    def after_train_iter(self, runner: MedtuneRunner, batch_idx: int, data_batch: Any, outputs: Any) -> None:  # type: ignore[override]
        """Keep the step; write when the interval is full. Only then is the device waited for."""
        self.window.append(outputs)
        step, last = runner.loop.iter, runner.loop.num_steps
        if step % self.interval == 0 or step == last or (step == 1 and self.log_first_step):
            self._write(runner)
            self.window.clear()

    def _write(self, runner: MedtuneRunner) -> None:
        loop, window = runner.loop, self.window
        seconds = sum(r.seconds for r in window)
        num_units = sum(r.num_units for r in window)
        scalars = {
            "lr": window[-1].lr,
            "loss": float(sum(r.loss_sum.double() for r in window)) / max(num_units, 1),
            "grad_norm": float(window[-1].grad_norm),
            "time": seconds / len(window),
            "data_time": sum(r.data_seconds for r in window) / len(window),
            "tokens_per_sec": sum(r.num_tokens for r in window) / max(seconds, 1e-9),
            "memory": peak_memory_mb(),
            "epoch": round(loop.fractional_epoch, 4),
            "tokens": loop.progress.num_tokens,
            "samples": loop.progress.num_samples,
        }
        runner.metrics["loss"] = scalars["loss"]
        width = len(str(loop.num_steps))
        left = datetime.timedelta(seconds=int(scalars["time"] * (loop.num_steps - loop.iter)))
        runner.logger.info(
            f"Iter(train) [{loop.iter:{width}}/{loop.num_steps}]  lr: {scalars['lr']:.4e}  eta: {left}  "
            f"time: {scalars['time']:.4f}  data_time: {scalars['data_time']:.4f}  memory: {scalars['memory']}  "
            f"loss: {scalars['loss']:.4f}  grad_norm: {scalars['grad_norm']:.4f}  "
            f"tokens_per_sec: {scalars['tokens_per_sec']:.0f}  epoch: {scalars['epoch']:.2f}  "
            f"tokens: {scalars['tokens']}  samples: {scalars['samples']}"
        )
        runner.visualizer.add_scalars(scalars, step=loop.iter, file_path=f"{runner.timestamp}.json")

    def after_val_epoch(self, runner: MedtuneRunner, metrics: dict[str, float] | None = None) -> None:  # type: ignore[override]
        """Write the validation's metrics."""
        metrics = metrics or {}
        runner.metrics.update(metrics)
        loop = runner.loop
        told = "  ".join(f"{k}: {v:.4f}" for k, v in metrics.items() if k != "val_tokens")
        runner.logger.info(f"Iter(val) [{loop.iter}/{loop.num_steps}]  {told}")
        scalars = {**metrics, "epoch": round(loop.fractional_epoch, 4)}
        runner.visualizer.add_scalars(scalars, step=loop.iter, file_path=f"{runner.timestamp}.json")


def peak_memory_mb() -> int:
    """Peak memory so far in MB: allocated on the GPU, or resident in this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    unit = 1 if sys.platform == "darwin" else 1024
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit) >> 20


class CheckpointHook(Hook):
    """Saves after each epoch (`epoch_1.pth`), or every `save_steps` steps (`iter_500.pth`), and at the end.

    Args:
        save_steps: optimizer steps between checkpoints; None is after each epoch.
        save_total_limit: checkpoints kept; older ones go once the new one is verified. None keeps all.
    """

    priority = "VERY_LOW"

    def __init__(self, save_steps: Count | None = None, save_total_limit: Count | None = None) -> None:
        self.save_steps = save_steps
        self.save_total_limit = save_total_limit
        self.last_saved = -1

    def after_train_iter(self, runner: MedtuneRunner, batch_idx: int, data_batch: Any, outputs: Any) -> None:  # type: ignore[override]
        """Save at the interval."""
        if self.save_steps and runner.loop.iter % self.save_steps == 0:
            self._save(runner, f"iter_{runner.loop.iter}.pth")

    def after_train_epoch(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Save after an epoch that is complete."""
        if not self.save_steps and runner.loop.progress.step_in_epoch == 0:
            self._save(runner, f"epoch_{runner.loop.epoch}.pth")

    def after_train(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Save the end, if nothing has."""
        if self.last_saved != runner.loop.iter:
            self._save(runner, f"iter_{runner.loop.iter}.pth")

    def _save(self, runner: MedtuneRunner, name: str) -> None:
        saved = runner.save_checkpoint(runner.work_dir, name)
        self.last_saved = runner.loop.iter
        if self.save_total_limit:
            old = [f for f in checkpoint.find_checkpoints(runner.folder) if f != saved]
            surplus = old[max(self.save_total_limit, 1) - 1 :]
            if surplus:
                checkpoint.verify(saved)
            for folder in surplus:
                shutil.rmtree(folder)
                runner.logger.info(f"removed {folder.name} (save_total_limit={self.save_total_limit})")


class DatasetInfoHook(Hook):
    """Logs what became of the data set's rows: counts and places, never text."""

    def before_run(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Log the report."""
        for line in runner.inputs.train_dataset.report.lines():
            runner.logger.info(f"data: {line}")


class EvaluateChatHook(Hook):
    """Lets the model answer fixed questions before, during and after training, into a private file.

    Args:
        tokenizer: of the model.
        evaluation_inputs: the questions.
        every_n_iters: optimizer steps between two rounds; None is only before and after training.
        system: system text of each question.
        prompt_template: as for the data.
        max_new_tokens: of each answer.
    """

    priority = "LOW"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        evaluation_inputs: Sequence[str] = (),
        every_n_iters: Count | None = None,
        system: str = "",
        prompt_template: str | Mapping[str, Any] | Template | None = None,
        max_new_tokens: Count = 128,
    ) -> None:
        self.tokenizer = tokenizer
        self.questions = [evaluation_inputs] if isinstance(evaluation_inputs, str) else list(evaluation_inputs)
        self.every_n_iters = every_n_iters
        self.system = system
        self.template = resolve_template(prompt_template, tokenizer)
        self.max_new_tokens = max_new_tokens
        self.last_step = -1

    def before_train(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Ask before the first step."""
        self.ask(runner)

    def after_train_iter(self, runner: MedtuneRunner, batch_idx: int, data_batch: Any, outputs: Any) -> None:  # type: ignore[override]
        """Ask at the interval."""
        if self.every_n_iters and runner.loop.iter % self.every_n_iters == 0:
            self.ask(runner)

    def after_train(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Ask after the last step."""
        self.ask(runner)

    def ask(self, runner: MedtuneRunner) -> None:
        """Answer all questions in one batch, greedily, and write them to `vis_data/eval_outputs_iter_N.txt`."""
        from medtune.generate import Sampling, add_stops, generate

        if not self.questions or self.last_step == runner.loop.iter:
            return
        self.last_step = runner.loop.iter
        system = [Message("system", self.system)] if self.system else []
        prompts = [encode_prompt([*system, Message("user", q)], self.template, self.tokenizer) for q in self.questions]
        model = runner.model
        greedy = Sampling(max_new_tokens=self.max_new_tokens, temperature=0.0)
        sampling = add_stops(greedy, model.llm, self.tokenizer, self.template)
        with model.autocast():
            answers = generate(model.llm, self.tokenizer, prompts, sampling)
        file = runner.vis_dir / f"eval_outputs_iter_{runner.loop.iter}.txt"
        pairs = zip(self.questions, answers, strict=True)
        text = "\n\n".join(f"Question: {q}\nAnswer: {a.text}\n[{a.finish_reason}]" for q, a in pairs)
        file.touch(mode=0o600)
        file.write_text(text + "\n", encoding="utf-8")
        ended = sum(a.finish_reason == "stop" for a in answers)
        num_tokens = sum(len(a.token_ids) for a in answers)
        runner.logger.info(
            f"Iter(chat) [{runner.loop.iter}/{runner.loop.num_steps}]  {len(answers)} answers, {ended} ended by "
            f"themselves, {num_tokens} tokens: {file.relative_to(runner.folder)}"
        )


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
        from tqdm.contrib.logging import logging_redirect_tqdm

        self.stack.enter_context(logging_redirect_tqdm([runner.logger]))
        self.bar = tqdm(total=runner.loop.num_steps, initial=runner.loop.iter, unit="step", dynamic_ncols=True)
        self.stack.callback(self.bar.close)

    def after_train_iter(self, runner: MedtuneRunner, batch_idx: int, data_batch: Any, outputs: Any) -> None:  # type: ignore[override]
        """Move it by one step."""
        if self.bar is not None:
            self.bar.update()

    def after_train(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Close it."""
        self.stack.close()


class LossPlotHook(Hook):
    """Draws `loss.png` in the work dir after each epoch and at the end: training and validation loss, learning rate."""

    priority = "LOWEST"

    def after_train_epoch(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Draw."""
        from medtune.engine.plot import plot_loss

        plot_loss(runner.folder, Path(runner.work_dir) / "loss.png")

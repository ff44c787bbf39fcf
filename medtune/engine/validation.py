"""Validation: metrics per trained token, the best checkpoint, early stopping, and a rehearsal before the first step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from mmengine.hooks import Hook
from torch.utils.data import DataLoader

from medtune.build import Count
from medtune.data.collate import StepBatch
from medtune.engine import distributed
from medtune.errors import ConfigError, EnvironmentFault
from medtune.files import write_json

if TYPE_CHECKING:
    from medtune.data.encode import EncodedSamples
    from medtune.engine.runner import MedtuneRunner
    from medtune.models.stage import Stage

REHEARSED_BATCHES = 2
HIGHER_IS_BETTER = {"val_loss": False, "val_accuracy": True}


class Sums(NamedTuple):
    """What an evaluation adds up over its units, over all ranks."""

    loss: float
    num_units: int
    logs: dict[str, float]
    """The stage's own, by name."""


@torch.no_grad()
def evaluate(model: Stage, batches: Collection[StepBatch] | DataLoader[StepBatch]) -> Sums:
    """Run the model over batches in evaluation mode; no random number is drawn and no weight changes.

    The sums do not depend on how samples are laid into batches or rows: each attends to itself alone.
    """
    was_training = model.training
    model.eval()
    model.begin_step((micro for batch in batches for micro in batch.micro_batches), distributed.sum_over_ranks)
    totals = torch.zeros(2 + len(model.eval_logs), dtype=torch.float64, device=model.device)
    for batch in batches:
        for micro in batch.micro_batches:
            output = model(micro.to(model.device))
            totals[0] += output.loss_sum
            totals[1] += output.num_units
            for i, name in enumerate(model.eval_logs, 2):
                totals[i] += output.logs[name]
    model.train(was_training)
    loss, num_units, *logs = distributed.sum_over_ranks(totals).tolist()
    return Sums(loss, int(num_units), dict(zip(model.eval_logs, logs, strict=True)))


def metrics_of(model: Stage, sums: Sums, num_characters: int) -> dict[str, float]:
    """Metrics of an evaluation, under the names that logs and files have.

    Args:
        model: the stage; it names its metrics.
        sums: from `evaluate`.
        num_characters: of the answers' text, from `count_characters`.

    Returns:
        "val_" before each of the stage's `metrics`; `val_tokens` (or pairs, answers), the number of units; and, where
        the unit is a token, `val_bits_per_character` (of the answers: models with other tokenizers compare by it).
    """
    means = {name: value / sums.num_units for name, value in sums.logs.items()}
    metrics = {f"val_{name}": value for name, value in model.metrics(sums.loss / sums.num_units, means).items()}
    if model.units == "tokens":
        metrics["val_bits_per_character"] = sums.loss / math.log(2) / max(num_characters, 1)
    return {**metrics, f"val_{model.units}": sums.num_units}


def count_characters(samples: EncodedSamples, tokenizer: Any) -> int:
    """Characters of the trained text: each run of trained tokens decoded, control tokens left out."""
    runs: list[list[int]] = []
    for i in range(len(samples)):
        labels = samples[i]["labels"].tolist()
        runs += [list(run) for is_trained, run in itertools.groupby(labels, lambda label: label >= 0) if is_trained]
    texts = tokenizer.batch_decode(runs, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return sum(map(len, texts))


class ValidationHook(Hook):
    """Validates at the interval and after the last step; knows the best step, and when to stop.

    Before the first step it rehearses: two validation batches, and a checkpoint that is written and removed again, so
    that a broken evaluation or a disk that cannot be written fails at once and not after hours.

    Args:
        interval: optimizer steps between validations; None is after each epoch.
        save_best: the metric whose best step gets a checkpoint that stays: "val_loss", lowest, or "val_accuracy",
            highest. None keeps none.
        early_stopping_patience: stop after this many validations in a row without a better `save_best` (`val_loss`,
            if that is None). None does not stop.
    """

    priority = "LOW"  # after the step's own log line, before the checkpoint, which holds what this hook remembers

    def __init__(
        self,
        interval: Count | None = None,
        save_best: Literal["val_loss", "val_accuracy"] | None = None,
        early_stopping_patience: Count | None = None,
    ) -> None:
        self.interval = interval
        self.save_best = save_best
        self.patience = early_stopping_patience
        self.metric = save_best or "val_loss"
        self.last_step = -1
        self.best_value: float | None = None
        self.best_step = -1
        self.num_stale = 0
        self._num_characters = 0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know, as plain values."""
        names = ("last_step", "best_value", "best_step", "num_stale")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        for name, value in state.items():
            setattr(self, name, value)

    def before_train(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Rehearse, unless the run is at its end."""
        data = runner.inputs.val_data
        if data is None and (self.save_best or self.patience):
            raise ConfigError("save_best and early_stopping_patience need validation data: val_ratio or val_data_path.")
        if self.save_best:
            runner.best_step = self.best_step  # of a resumed run
        self._stop_if_stale(runner)
        if runner.loop.ended:
            return
        if data is not None:
            evaluate(runner.model, list(itertools.islice(data, REHEARSED_BATCHES)))
            self._num_characters = count_characters(data.dataset.samples, runner.inputs.tokenizer)  # type: ignore[attr-defined]
        runner.rehearse_save()

    def after_train_iter(self, runner: MedtuneRunner, batch_idx: int, data_batch: Any, outputs: Any) -> None:  # type: ignore[override]
        """Validate at the interval."""
        if self.interval and runner.loop.iter % self.interval == 0:
            self._validate(runner)

    def after_train_epoch(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Validate after an epoch, if there is no interval."""
        if not self.interval:
            self._validate(runner)

    def after_train(self, runner: MedtuneRunner) -> None:  # type: ignore[override]
        """Validate the end, if nothing has, and write `eval_results.json`."""
        self._validate(runner)
        if runner.inputs.val_data is not None and distributed.is_main():
            best = {"best_step": self.best_step, f"best_{self.metric}": self.best_value}
            metrics = {name: value for name, value in runner.metrics.items() if name.startswith("val_")}
            results = {**metrics, "step": runner.loop.iter, **best}
            write_json(Path(runner.work_dir) / "eval_results.json", results)

    def _validate(self, runner: MedtuneRunner) -> None:
        data, step = runner.inputs.val_data, runner.loop.iter
        if data is None or self.last_step == step:
            return
        runner.call_hook("before_val")
        metrics = metrics_of(runner.model, evaluate(runner.model, data), self._num_characters)
        if not math.isfinite(metrics["val_loss"]):
            raise EnvironmentFault(f"the validation loss is {metrics['val_loss']} at step {step}. Lower lr.")
        self.last_step = step
        runner.metrics.update(metrics)
        self._compare(metrics[self.metric], step)
        runner.call_hook("after_val_epoch", metrics=metrics)
        runner.call_hook("after_val")
        if self.save_best:
            runner.best_step = self.best_step
        self._stop_if_stale(runner)

    def _compare(self, value: float, step: int) -> None:
        sign = 1 if HIGHER_IS_BETTER[self.metric] else -1
        if self.best_value is None or sign * value > sign * self.best_value:
            self.best_value, self.best_step, self.num_stale = value, step, 0
        else:
            self.num_stale += 1

    def _stop_if_stale(self, runner: MedtuneRunner) -> None:
        if self.patience and self.num_stale >= self.patience and not runner.loop.ended:
            runner.loop.stopped_early = True
            runner.logger.info(
                f"early stopping at step {runner.loop.iter}: {self.metric} was best at step {self.best_step}, "
                f"{self.num_stale} validations ago"
            )

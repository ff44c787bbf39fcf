"""The train loop: one iteration is one optimizer step, and its loss is per unit of that whole step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from mmengine.runner import BaseLoop
from torch.utils.data import DataLoader

from medtune.build import Count, Positive
from medtune.data.collate import StepBatch
from medtune.data.sampler import StepSampler
from medtune.errors import EnvironmentFault

if TYPE_CHECKING:
    from medtune.engine.runner import MedtuneRunner


@dataclass
class Progress:
    """Where training stands. All counts are over all ranks."""

    step: int = 0
    """Optimizer steps done."""
    epoch: int = 0
    """Epochs completed."""
    step_in_epoch: int = 0
    """Optimizer steps done in the current epoch."""
    num_tokens: int = 0
    num_units: int = 0
    num_samples: int = 0

    def as_dict(self) -> dict[str, int]:
        """Plain numbers, for `state.json`."""
        return asdict(self)


class StepResult(NamedTuple):
    """What one optimizer step gives its hooks. Tensors stay on the device: reading them waits for it."""

    loss_sum: torch.Tensor
    """() sum over the step's units, all ranks."""
    num_units: int
    num_tokens: int
    num_samples: int
    grad_norm: torch.Tensor
    """() global norm before clipping."""
    lr: float
    seconds: float
    data_seconds: float


class TrainLoop(BaseLoop):
    """Trains for a number of epochs or optimizer steps.

    Args:
        runner: the Runner.
        dataloader: from `step_dataloader`.
        max_epochs: passes over the data; a fraction is allowed.
        max_steps: optimizer steps; if given, it decides and `max_epochs` does not.
        val_interval: optimizer steps between validations; None is after each epoch.
    """

    runner: MedtuneRunner

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader[StepBatch],
        max_epochs: Positive = 1,
        max_steps: Count | None = None,
        val_interval: Count | None = None,
    ) -> None:
        super().__init__(runner, dataloader)
        self.sampler: StepSampler = dataloader.batch_sampler  # type: ignore[assignment]
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.num_steps = max_steps or max(1, round(max_epochs * self.steps_per_epoch))
        self.val_interval = val_interval
        self.progress = Progress()

    # mmengine hooks read these names; here all of them count optimizer steps.
    @property
    def iter(self) -> int:
        """Optimizer steps done."""
        return self.progress.step

    @property
    def max_iters(self) -> int:
        """Optimizer steps of the whole training."""
        return self.num_steps

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.progress.epoch

    @property
    def max_epochs(self) -> int:
        """Epochs of the whole training, rounded up."""
        return math.ceil(self.num_steps / self.steps_per_epoch)

    @property
    def fractional_epoch(self) -> float:
        """Passes over the data so far."""
        return self.progress.epoch + self.progress.step_in_epoch / self.steps_per_epoch

    def run(self) -> torch.nn.Module:
        """Train to the end, from wherever `progress` stands."""
        runner = self.runner
        runner.call_hook("before_train")
        runner.model.train()
        while self.progress.step < self.num_steps:
            runner.call_hook("before_train_epoch")
            self._run_epoch()
            if self.progress.step_in_epoch == self.steps_per_epoch:
                self.progress.epoch += 1
                self.progress.step_in_epoch = 0
            if self.val_interval is None:
                self.validate()
            runner.call_hook("after_train_epoch")
        runner.call_hook("after_train")
        return runner.model

    def _run_epoch(self) -> None:
        self.sampler.seek(self.progress.epoch, self.progress.step_in_epoch)
        started = time.perf_counter()
        for batch in self.dataloader:
            loaded = time.perf_counter()
            self.runner.call_hook("before_train_iter", batch_idx=self.progress.step, data_batch=batch)
            result = self._run_step(batch, started, loaded)
            self._count(result)
            self.runner.call_hook(
                "after_train_iter", batch_idx=self.progress.step - 1, data_batch=batch, outputs=result
            )
            if self.val_interval and self.progress.step % self.val_interval == 0:
                self.validate()
            self.runner.raise_if_stopped()
            if self.progress.step >= self.num_steps:
                return
            started = time.perf_counter()

    def _count(self, result: StepResult) -> None:
        progress = self.progress
        progress.step += 1
        progress.step_in_epoch += 1
        progress.num_tokens += result.num_tokens
        progress.num_units += result.num_units
        progress.num_samples += result.num_samples

    def _run_step(self, batch: StepBatch, started: float, loaded: float) -> StepResult:
        """Forward and backward over the micro-batches, then one optimizer step."""
        model, optim = self.runner.model, self.runner.optim_wrapper
        num_units, num_tokens, num_samples = _over_ranks(batch.num_units, batch.num_tokens, batch.num_samples)
        loss_sum = torch.zeros((), device=model.device)
        for micro in batch.micro_batches:
            output = model(micro.to(model.device))
            optim.backward(output.loss_sum / num_units)
            loss_sum += output.loss_sum.detach()
        grad_norm = optim.clip()
        measured = loss_sum if optim.scaler.is_enabled() else loss_sum + grad_norm  # fp16 skips such a gradient
        if not torch.isfinite(measured):  # the one wait for the device in a step
            rows = ", ".join(dict.fromkeys(o for m in batch.micro_batches for o in m.origins))
            raise EnvironmentFault(
                f"the loss is {loss_sum.item()} and the gradient's norm {grad_norm.item()} at step "
                f"{self.progress.step + 1}; the weights were not touched. Rows: {rows[:500]}. "
                "Lower lr, or use torch_dtype='bf16' or 'fp32'."
            )
        lr = optim.param_groups[0]["lr"]
        optim.step()
        for scheduler in self.runner.param_schedulers:
            scheduler.step()
        seconds = time.perf_counter() - started
        return StepResult(
            loss_sum, num_units, num_tokens, num_samples, grad_norm.detach(), lr, seconds, loaded - started
        )

    def validate(self) -> dict[str, float] | None:
        """Loss and accuracy over the validation data, per trained token; None without such data."""
        loader = self.runner.inputs.val_data
        if loader is None:
            return None
        model = self.runner.model
        self.runner.call_hook("before_val")
        model.eval()
        loss_sum = torch.zeros((), dtype=torch.float64)
        num_correct = num_units = 0
        with torch.no_grad():
            for batch in loader:
                for micro in batch.micro_batches:
                    output = model(micro.to(model.device))
                    loss_sum += output.loss_sum.double().cpu()
                    num_correct += int(output.logs["correct"])
                    num_units += output.num_units
        model.train()
        loss = loss_sum.item() / num_units
        metrics = {
            "val_loss": loss,
            "val_perplexity": math.exp(min(loss, 700.0)),
            "val_accuracy": num_correct / num_units,
            "val_tokens": float(num_units),
        }
        self.runner.call_hook("after_val_epoch", metrics=metrics)
        self.runner.call_hook("after_val")
        return metrics


def _over_ranks(*counts: int) -> Iterator[int]:
    """Sums of a step's counts over all ranks."""
    if not (dist.is_available() and dist.is_initialized()):
        return iter(counts)
    total = torch.tensor(counts, dtype=torch.int64)
    dist.all_reduce(total)
    return iter(total.tolist())

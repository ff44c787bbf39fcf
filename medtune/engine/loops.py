"""The train loop: one iteration is one optimizer step, and its loss is per unit of that whole step."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from mmengine.runner import BaseLoop
from torch.utils.data import DataLoader

from medtune.build import Count, Positive
from medtune.data.collate import StepBatch
from medtune.data.sampler import StepSampler
from medtune.engine import distributed
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
    num_skipped: int = 0
    """Steps without a trained token: counted, with the weights left alone."""

    def as_dict(self) -> dict[str, int]:
        """Plain numbers, for `state.json`."""
        return asdict(self)


class StepResult(NamedTuple):
    """What one optimizer step gives its hooks. Tensors stay on the device: reading them waits for it."""

    loss_sum: torch.Tensor
    """() sum over the step's units, all ranks."""
    logs: dict[str, torch.Tensor]
    """() each: the stage's own sums over the same units, all ranks."""
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
    """

    runner: MedtuneRunner

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader[StepBatch],
        max_epochs: Positive = 1,
        max_steps: Count | None = None,
    ) -> None:
        super().__init__(runner, dataloader)
        self.sampler: StepSampler = dataloader.batch_sampler  # type: ignore[assignment]
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.num_steps = max_steps or max(1, round(max_epochs * self.steps_per_epoch))
        self.progress = Progress()
        self.signals = [0, 0]
        """Of all ranks, when the latest step began: Ctrl-C, and others."""
        self.stopped_early = False

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

    @property
    def ended(self) -> bool:
        """True when no further step is to be taken: all are done, or a hook has set `stopped_early`."""
        return self.stopped_early or self.progress.step >= self.num_steps

    def run(self) -> torch.nn.Module:
        """Train to the end, from wherever `progress` stands."""
        runner = self.runner
        runner.call_hook("before_train")
        runner.model.train()
        while not self.ended:
            runner.call_hook("before_train_epoch")
            self._run_epoch()
            if self.progress.step_in_epoch == self.steps_per_epoch:
                self.progress.epoch += 1
                self.progress.step_in_epoch = 0
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
            self.runner.raise_if_stopped()
            if self.ended:
                return
            started = time.perf_counter()

    def _count(self, result: StepResult) -> None:
        progress = self.progress
        progress.step += 1
        progress.step_in_epoch += 1
        progress.num_tokens += result.num_tokens
        progress.num_units += result.num_units
        progress.num_samples += result.num_samples
        progress.num_skipped += result.num_units == 0

    def _run_step(self, batch: StepBatch, started: float, loaded: float) -> StepResult:
        """Forward and backward over the micro-batches, then one optimizer step."""
        model, optim = self.runner.model, self.runner.optim_wrapper
        counts = (model.count_units(batch), batch.num_tokens, batch.num_samples)
        num_units, num_tokens, num_samples, *self.signals = distributed.sum_counts(*counts, *self.runner.signals)
        if num_units == 0:
            return self._skip_step(num_tokens, num_samples, started, loaded)
        model.begin_step(batch.micro_batches, distributed.sum_over_ranks)
        sums = torch.zeros(1 + len(model.train_logs), device=model.device)  # loss, logs
        for micro in batch.micro_batches:
            output = model(micro.to(model.device))
            optim.backward(output.loss_sum / num_units)
            sums += torch.stack([output.loss_sum.detach(), *(output.logs[name] for name in model.train_logs)])
        own_loss = sums[0].clone()
        loss_sum, *logs = distributed.sum_over_ranks(sums)
        distributed.reduce_gradients(p for group in optim.param_groups for p in group["params"])
        grad_norm = optim.clip()
        measured = loss_sum if optim.scaler.is_enabled() else loss_sum + grad_norm  # fp16 skips such a gradient
        if not torch.isfinite(measured):  # the one wait for the device in a step
            raise self._runaway(batch, own_loss, loss_sum, grad_norm)
        lr = optim.param_groups[0]["lr"]
        optim.step()
        for scheduler in self.runner.param_schedulers:
            scheduler.step()
        seconds = time.perf_counter() - started
        return StepResult(
            loss_sum,
            dict(zip(model.train_logs, logs, strict=True)),
            num_units,
            num_tokens,
            num_samples,
            grad_norm.detach(),
            lr,
            seconds,
            loaded - started,
        )

    def _skip_step(self, num_tokens: int, num_samples: int, started: float, loaded: float) -> StepResult:
        """A step without a unit on any rank: there is no mean to take, and Adam's momentum would move the weights.

        `data.encode` leaves no sample without a trained token, so only a data set of another make can bring one. The
        step counts, in the schedule too; the weights and the optimizer's state stay.
        """
        zero = torch.zeros((), device=self.runner.model.device)
        lr = self.runner.optim_wrapper.param_groups[0]["lr"]
        for scheduler in self.runner.param_schedulers:
            scheduler.step()
        seconds = time.perf_counter() - started
        logs = dict.fromkeys(self.runner.model.train_logs, zero)
        return StepResult(zero, logs, 0, num_tokens, num_samples, zero, lr, seconds, loaded - started)

    def _runaway(
        self, batch: StepBatch, own_loss: torch.Tensor, loss_sum: torch.Tensor, grad_norm: torch.Tensor
    ) -> EnvironmentFault:
        """The fault of a step that is not finite. It names the rows of ranks whose own loss is not, or else of all."""
        rows = ", ".join(dict.fromkeys(o for m in batch.micro_batches for o in m.origins))
        every = distributed.gather_text(rows)
        guilty = distributed.gather_text("" if torch.isfinite(own_loss) else rows)
        named = ", ".join(filter(None, guilty if any(guilty) else every))
        return EnvironmentFault(
            f"the loss is {loss_sum.item()} and the gradient's norm {grad_norm.item()} at step "
            f"{self.progress.step + 1}; the weights were not touched. Rows: {named[:500]}. "
            "Lower lr, or use torch_dtype='bf16' or 'fp32'."
        )

"""KTO: answers that are labelled good or bad, each alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from medtune.build import Positive, checked_by
from medtune.data.collate import MicroBatch, StepBatch
from medtune.models.preference import ReferenceStage, precheck_reference
from medtune.models.stage import StageOutput
from medtune.preference_losses import kto_loss

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


@checked_by(precheck_reference)
class KTO(ReferenceStage):
    """Kahneman-Tversky optimisation: good answers above the reference point, bad ones below it; the unit is the answer.

    The reference point estimates how far the model has moved from the reference: the mean log ratio of answers behind
    prompts that they do not answer, not below 0, without gradient. It is taken over a whole optimizer step and all
    ranks, so it does not depend on how a step is cut into micro-batches; over all answers in a validation.

    Args:
        llm, lora, ...: as for `Stage`.
        beta: strength of the pull to the reference.
        desirable_weight, undesirable_weight: of good and of bad answers; (weight x number) should be about the same.

    Source: Ethayarajh et al. 2024, arXiv 2402.01306.
    """

    stage = "kto"
    kind = "labels"
    units = "answers"
    train_logs = ("correct", "good", "good_reward", "bad_reward", "good_loss", "kl")
    eval_logs = train_logs

    def __init__(
        self,
        llm: PreTrainedModel,
        lora: PeftConfig | None = None,
        *,
        beta: Positive = 0.1,
        desirable_weight: Positive = 1.0,
        undesirable_weight: Positive = 1.0,
        **shared: Any,
    ) -> None:
        super().__init__(llm, lora, **shared)
        self.beta = beta
        self.weights = (desirable_weight, undesirable_weight)
        self.reference_point = torch.zeros(())

    def count_units(self, batch: StepBatch) -> int:
        """Answers of a step."""
        return batch.num_samples

    @torch.no_grad()
    def begin_step(self, micros: Iterable[MicroBatch], over_ranks: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Estimate the reference point; dropout is off."""
        was_training = self.training
        self.eval()
        total = torch.zeros(2, dtype=torch.float64, device=self.device)  # sum of log ratios, answers
        for micro in micros:
            assert micro.mismatched is not None
            mismatched = micro.mismatched.to(self.device)
            ratio = self.answers(mismatched).log_probs - self.reference_answers(mismatched).log_probs
            total += torch.stack([ratio.double().sum(), total.new_tensor(len(ratio))])
        self.train(was_training)
        log_ratio, num_answers = over_ranks(total)
        self.reference_point = (log_ratio / num_answers.clamp(min=1)).clamp(min=0).float()

    def forward(self, micro: MicroBatch) -> StageOutput:
        """Loss summed over answers; in the logs, a reward is beta times the ratio."""
        assert micro.good is not None
        good, point = micro.good, self.reference_point
        reference = self.reference_answers(micro)
        policy = self.answers(micro)
        ratio = policy.log_probs - reference.log_probs
        loss = kto_loss(ratio, good, point, self.beta, *self.weights)
        rewards = self.beta * ratio.detach()
        logs = {
            "correct": ((ratio > point) == good).sum(),
            "good": good.sum(),
            "good_reward": rewards[good].sum(),
            "bad_reward": rewards[~good].sum(),
            "good_loss": -policy.means.detach()[good].sum(),
            "kl": point * len(good),
        }
        return StageOutput(loss, len(good), logs)

    def metrics(self, loss: float, logs: Mapping[str, float]) -> dict[str, float]:
        """Loss, answers on the right side of the reference point, mean rewards of good and bad ones, and that point.

        `chosen_loss` is nats for a token of a good answer. What there is no answer for is left out.
        """
        good, bad = logs["good"], 1 - logs["good"]
        shown = {"loss": loss, "accuracy": logs["correct"], "kl": logs["kl"]}
        if good > 0:
            shown |= {"chosen_reward": logs["good_reward"] / good, "chosen_loss": logs["good_loss"] / good}
        if bad > 0:
            shown["rejected_reward"] = logs["bad_reward"] / bad
        if good > 0 and bad > 0:
            shown["margin"] = shown["chosen_reward"] - shown["rejected_reward"]
        return shown

"""Stages on pairs: DPO and its family, ORPO, SimPO. Sample 2i of a micro-batch is chosen, 2i + 1 rejected."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import torch
from torch import nn

from medtune.build import Positive, Share, Within, checked_by
from medtune.data.collate import MicroBatch, StepBatch
from medtune.errors import ConfigError
from medtune.models.lora import precheck_lora
from medtune.models.stage import Stage, StageOutput
from medtune.preference_losses import PER_TOKEN, DpoLoss, answer_log_probs, dpo_loss, orpo_loss, simpo_loss

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel
    from typing_extensions import Self


class Answers(NamedTuple):
    """What a model makes of the N answers of a micro-batch."""

    log_probs: torch.Tensor
    """(N,) fp32, summed over an answer's tokens."""
    num_tokens: torch.Tensor
    """(N,) int64 trained tokens of each."""

    @property
    def means(self) -> torch.Tensor:
        """(N,) mean log-probability of an answer's tokens."""
        return self.log_probs / self.num_tokens.clamp(min=1)


class PreferenceStage(Stage):
    """What stages on whole answers share: their log-probabilities. The unit is the pair."""

    units = "pairs"
    kind = "pairs"

    def count_units(self, batch: StepBatch) -> int:
        """Pairs of a step."""
        return batch.num_samples // 2

    def answers(self, micro: MicroBatch, llm: nn.Module | None = None) -> Answers:
        """Log-probability of each answer under the trained model, or under `llm`."""
        num_answers = len(micro.origins)
        answer_of = torch.bucketize(micro.predict_at, micro.cu_seqlens[1:], right=True)
        log_probs = answer_log_probs(self.logits(micro, llm), micro.targets, answer_of, num_answers)
        return Answers(log_probs, torch.bincount(answer_of, minlength=num_answers))


class ReferenceStage(PreferenceStage):
    """What stages share that hold on to the model that training began with.

    Under LoRA the reference is the same model with the adapter off; under a full fine-tune it is a frozen copy.
    """

    def __init__(self, llm: PreTrainedModel, lora: PeftConfig | None = None, **shared: Any) -> None:
        reference = None if lora is not None else copy.deepcopy(llm).float().requires_grad_(False).eval()
        super().__init__(llm, lora, **shared)
        self.reference = reference

    def train(self, mode: bool = True) -> Self:
        """As for any module; the reference has no dropout."""
        super().train(mode)
        if self.reference is not None:
            self.reference.eval()
        return self

    @torch.no_grad()
    def reference_answers(self, micro: MicroBatch) -> Answers:
        """Log-probabilities under the model that training began with; dropout is off."""
        if self.reference is not None:
            return self.answers(micro, self.reference)
        was_training = self.llm.training
        try:
            self.llm.eval()
            with self.llm.disable_adapter():
                return self.answers(micro, self.llm)
        finally:
            self.llm.train(was_training)


def precheck_reference(lora_variant: str | None = None, **rest: Any) -> None:
    """`precheck_lora`, and PiSSA is refused: it takes a part out of the base, which here is the reference.

    Raises:
        ConfigError: lists what is wrong.
    """
    precheck_lora(lora_variant=lora_variant, **rest)
    if lora_variant == "pissa":
        raise ConfigError("lora_variant='pissa' takes a part out of the base, which here is the reference. Use None.")


def _precheck_dpo(loss_type: str = "sigmoid", label_smoothing: float = 0.0, **rest: Any) -> None:
    precheck_reference(**rest)
    if loss_type == "exo_pair" and not 0 < label_smoothing < 1:
        raise ConfigError(f"label_smoothing={label_smoothing}: exo_pair needs one above 0, such as 1e-3.")
    if loss_type == "robust" and not 0 <= label_smoothing < 0.5:
        raise ConfigError(f"label_smoothing={label_smoothing}: robust needs one below 0.5.")


@checked_by(_precheck_dpo)
class DPO(ReferenceStage):
    """Direct preference optimisation against the model that training began with.

    Args:
        llm, lora, ...: as for `Stage`.
        loss_type: of the DPO family; `preference_losses.PAIR_LOSSES` names their papers.
        beta: strength of the pull to the reference.
        label_smoothing: share of pairs that are labelled the wrong way round, for sigmoid, robust and exo_pair.
        sft_weight: adds this times the chosen answer's mean cross entropy for a token (RPO: Pang et al. 2024,
            arXiv 2404.19733).

    Raises:
        ConfigError: also for PiSSA, and for a smoothing that the loss cannot take.
    """

    stage = "dpo"
    train_logs = ("correct", "chosen_reward", "rejected_reward", "chosen_loss")
    eval_logs = train_logs

    def __init__(
        self,
        llm: PreTrainedModel,
        lora: PeftConfig | None = None,
        *,
        loss_type: DpoLoss = "sigmoid",
        beta: Positive = 0.1,
        label_smoothing: Share = 0.0,
        sft_weight: Annotated[float, Within(0)] = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(llm, lora, **shared)
        self.loss_type = loss_type
        self.beta = beta
        self.label_smoothing = label_smoothing
        self.sft_weight = sft_weight

    def forward(self, micro: MicroBatch) -> StageOutput:
        """Loss summed over pairs; in the logs, a reward is beta times the ratio."""
        reference = self.reference_answers(micro)
        policy = self.answers(micro)
        ratio = policy.log_probs - reference.log_probs
        scaled = ratio / policy.num_tokens.clamp(min=1) if self.loss_type in PER_TOKEN else ratio
        loss = dpo_loss(scaled[0::2], scaled[1::2], self.loss_type, self.beta, self.label_smoothing)
        chosen_loss = -policy.means[0::2].sum()
        if self.sft_weight:
            loss = loss + self.sft_weight * chosen_loss
        rewards = self.beta * ratio.detach()
        logs = {
            "correct": (rewards[0::2] > rewards[1::2]).sum(),
            "chosen_reward": rewards[0::2].sum(),
            "rejected_reward": rewards[1::2].sum(),
            "chosen_loss": chosen_loss.detach(),
        }
        return StageOutput(loss, len(rewards) // 2, logs)

    def metrics(self, loss: float, logs: Mapping[str, float]) -> dict[str, float]:
        """Loss, share of pairs in the right order, rewards and their distance, and nats for a chosen token."""
        return {
            "loss": loss,
            "accuracy": logs["correct"],
            "margin": logs["chosen_reward"] - logs["rejected_reward"],
            **{name: logs[name] for name in ("chosen_reward", "rejected_reward", "chosen_loss")},
        }


class _WithoutReference(PreferenceStage):
    """ORPO and SimPO: the mean log-probability of an answer's tokens is its score."""

    train_logs = ("correct", "chosen_loss", "rejected_loss")
    eval_logs = train_logs

    def output(self, loss: torch.Tensor, means: torch.Tensor) -> StageOutput:
        """The loss with the logs of answers whose mean log-probabilities are `means`, (2N,)."""
        means = means.detach()
        logs = {
            "correct": (means[0::2] > means[1::2]).sum(),
            "chosen_loss": -means[0::2].sum(),
            "rejected_loss": -means[1::2].sum(),
        }
        return StageOutput(loss, len(means) // 2, logs)

    def metrics(self, loss: float, logs: Mapping[str, float]) -> dict[str, float]:
        """Loss, share of pairs in the right order, and nats for a token of either answer."""
        chosen, rejected = logs["chosen_loss"], logs["rejected_loss"]
        return {
            "loss": loss,
            "accuracy": logs["correct"],
            "margin": rejected - chosen,
            "chosen_loss": chosen,
            "rejected_loss": rejected,
        }


@checked_by(precheck_lora)
class ORPO(_WithoutReference):
    """Odds-ratio preference optimisation: cross entropy of the chosen answer, and odds above the rejected one's.

    Args:
        llm, lora, ...: as for `Stage`.
        beta: weight of the odds ratio; the paper's lambda.

    Source: Hong et al. 2024, arXiv 2403.07691, equation 6; both terms for each pair, the first a mean over tokens.
    """

    stage = "orpo"

    def __init__(self, llm: PreTrainedModel, lora: PeftConfig | None = None, *, beta: Positive = 0.1, **shared: Any):
        super().__init__(llm, lora, **shared)
        self.beta = beta

    def forward(self, micro: MicroBatch) -> StageOutput:
        """Loss summed over pairs."""
        means = self.answers(micro).means
        return self.output(-means[0::2].sum() + self.beta * orpo_loss(means[0::2], means[1::2]), means)


@checked_by(precheck_lora)
class SimPO(_WithoutReference):
    """Simple preference optimisation, with a margin and without a reference.

    Args:
        llm, lora, ...: as for `Stage`.
        beta: scale of the difference of mean log-probabilities.
        margin: how far apart they should be, after scaling; the paper's gamma.
        label_smoothing: share of pairs that are labelled the wrong way round.

    Source: Meng et al. 2024, arXiv 2405.14734.
    """

    stage = "simpo"

    def __init__(
        self,
        llm: PreTrainedModel,
        lora: PeftConfig | None = None,
        *,
        beta: Positive = 2.0,
        margin: Annotated[float, Within(0)] = 1.0,
        label_smoothing: Share = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(llm, lora, **shared)
        self.beta, self.margin, self.label_smoothing = beta, margin, label_smoothing

    def forward(self, micro: MicroBatch) -> StageOutput:
        """Loss summed over pairs."""
        means = self.answers(micro).means
        return self.output(simpo_loss(means[0::2], means[1::2], self.beta, self.margin, self.label_smoothing), means)

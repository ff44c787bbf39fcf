"""Supervised fine-tuning, a causal language model trained on the assistant's tokens; and continued pre-training."""

from __future__ import annotations

import math
from collections.abc import Mapping

from medtune.build import checked_by
from medtune.data.collate import MicroBatch
from medtune.losses import token_cross_entropy
from medtune.models.lora import precheck_lora
from medtune.models.stage import Stage, StageOutput


@checked_by(precheck_lora)
class SupervisedFinetune(Stage):
    """Cross entropy over trained tokens; the unit is the trained token. Arguments as for `Stage`."""

    stage = "sft"
    eval_logs = ("correct",)

    def forward(self, micro: MicroBatch) -> StageOutput:
        """Loss of one flat row, summed over its trained tokens.

        In evaluation mode, `logs["correct"]` counts the trained tokens that the model puts first.
        """
        logits = self.logits(micro)
        loss = token_cross_entropy(logits, micro.targets)
        logs = {} if self.training else {"correct": (logits.argmax(-1) == micro.targets).sum()}
        return StageOutput(loss, len(micro.targets), logs)

    def metrics(self, loss: float, logs: Mapping[str, float]) -> dict[str, float]:
        """Nats for a trained token, its exponential, and the share of trained tokens put first."""
        shown = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        return shown | ({"accuracy": logs["correct"]} if "correct" in logs else {})


@checked_by(precheck_lora)
class Pretrain(SupervisedFinetune):
    """Continued pre-training: the same loss on documents, of which every token is trained.

    The documents are made by `data.templates.document_template`. Arguments as for `Stage`.
    """

    stage = "pt"

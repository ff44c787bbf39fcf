"""Reward model: a score for an answer, learnt from pairs. Sample 2i of a micro-batch is chosen, 2i + 1 rejected."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from torch.nn.utils.rnn import pad_sequence

from medtune.build import Within, checked_by
from medtune.data.collate import MicroBatch
from medtune.errors import ConfigError
from medtune.models.lora import precheck_lora
from medtune.models.preference import PreferenceStage
from medtune.models.stage import StageOutput
from medtune.preference_losses import ranking_loss

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@checked_by(precheck_lora)
class RewardModel(PreferenceStage):
    """Pairwise ranking: the chosen answer shall score above the rejected one (Bradley-Terry).

    The score is a linear head on the hidden state of a conversation's last token. The model is transformers' own for
    sequence classification with one label; an adapter trains the head in full, beside it.

    Args:
        llm: from `load_llm(head="score")`.
        lora, ...: as for `Stage`.
        tokenizer: its padding token is set to one that ends no conversation, because transformers scores the last token
            that is no padding.
        loss_type: "ranking", or "focal", which counts pairs little that are told apart already.
        margin: how far apart the scores should be.
        centre: weight of the squared sum of a pair's scores, which keeps scores about 0.

    Raises:
        ConfigError: the tokenizer has no token to pad with, or the model no score.

    Source: Ouyang et al. 2022, arXiv 2203.02155; see `preference_losses.ranking_loss` for the others.
    """

    stage = "rm"
    train_logs = ("correct", "chosen_score", "rejected_score", "squares")
    eval_logs = train_logs

    def __init__(
        self,
        llm: PreTrainedModel,
        lora: PeftConfig | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase,
        loss_type: Literal["ranking", "focal"] = "ranking",
        margin: Annotated[float, Within(0)] = 0.0,
        centre: Annotated[float, Within(0)] = 0.0,
        **shared: Any,
    ) -> None:
        if not hasattr(llm, "score"):
            raise ConfigError(f"{type(llm).__name__} gives no score; load it with load_llm(head='score').")
        llm.config.get_text_config().pad_token_id = set_padding(tokenizer)
        if lora is not None:
            lora.task_type = "SEQ_CLS"  # PEFT then trains the head beside the adapter
        super().__init__(llm, lora, **shared)
        self.loss_type: Literal["ranking", "focal"] = loss_type
        self.margin, self.centre = margin, centre

    def scores(self, micro: MicroBatch) -> torch.Tensor:
        """(N,) fp32: the score of each sample of a flat row."""
        if self.training and self.neftune_noise_alpha:
            self._noise_bound = self._noise_bound_of(micro, self.neftune_noise_alpha)
        llm = self.llm.get_base_model() if self.has_adapter else self.llm
        with self.autocast():
            scores = llm.score(self._last_states(micro, llm.base_model))[:, 0]
        self._noise_bound = None
        return scores.float()

    def _last_states(self, micro: MicroBatch, body: Any) -> torch.Tensor:
        """(N, D): the hidden state of each sample's last token."""
        bounds = micro.cu_seqlens
        if self.packed_rows:
            states = body(
                input_ids=micro.input_ids,
                position_ids=micro.position_ids,
                cu_seq_lens_q=bounds,
                cu_seq_lens_k=bounds,
                max_length_q=micro.max_seqlen,
                max_length_k=micro.max_seqlen,
                use_cache=False,
            ).last_hidden_state[0]
            return states[bounds[1:].long() - 1]
        rows = [micro.input_ids[0, a:b] for a, b in itertools.pairwise(bounds.tolist())]
        lengths = bounds.diff().long()
        input_ids = pad_sequence(rows, batch_first=True)
        real = torch.arange(input_ids.shape[1], device=input_ids.device) < lengths[:, None]  # (N, L)
        states = body(input_ids=input_ids, attention_mask=real.long(), use_cache=False).last_hidden_state
        return states[torch.arange(len(rows), device=input_ids.device), lengths - 1]

    def forward(self, micro: MicroBatch) -> StageOutput:
        """Loss summed over pairs."""
        scores = self.scores(micro)
        chosen, rejected = scores[0::2], scores[1::2]
        margin = torch.full_like(chosen, self.margin) if self.margin else None
        loss = ranking_loss(chosen, rejected, margin, self.loss_type, self.centre)
        scores, chosen, rejected = scores.detach(), chosen.detach(), rejected.detach()
        logs = {
            "correct": (chosen > rejected).sum(),
            "chosen_score": chosen.sum(),
            "rejected_score": rejected.sum(),
            "squares": scores.square().sum(),
        }
        return StageOutput(loss, len(chosen), logs)

    def metrics(self, loss: float, logs: Mapping[str, float]) -> dict[str, float]:
        """Loss, share of pairs in the right order, mean scores, their distance, and the deviation of all scores."""
        chosen, rejected = logs["chosen_score"], logs["rejected_score"]
        variance = logs["squares"] / 2 - ((chosen + rejected) / 2) ** 2
        return {
            "loss": loss,
            "accuracy": logs["correct"],
            "margin": chosen - rejected,
            "chosen_score": chosen,
            "rejected_score": rejected,
            "score_std": math.sqrt(max(variance, 0.0)),
        }


def set_padding(tokenizer: PreTrainedTokenizerBase) -> int:
    """Give a tokenizer a padding token that ends no conversation, and return its id.

    That is its own, unless this is also the eos token; then its unknown or its first token, which end nothing.

    Raises:
        ConfigError: it has none of these.
    """
    ends = {None, tokenizer.eos_token}
    token = next((t for t in (tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token) if t not in ends), None)
    if token is None:
        raise ConfigError(
            "a reward model needs a padding token other than eos, to tell where a padded text ends; set pad_token in "
            "the tokenizer_config.json of tokenizer_name_or_path."
        )
    tokenizer.pad_token = token
    return tokenizer.added_tokens_encoder[token]

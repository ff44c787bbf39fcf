"""Supervised fine-tuning: a language model, perhaps with an adapter, and its loss on one flat row."""

from __future__ import annotations

import inspect
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from medtune.compat import quiet_peft
from medtune.data.collate import MicroBatch
from medtune.errors import ConfigError
from medtune.losses import token_cross_entropy
from medtune.models.load import DtypeName, pick_dtype, supports_packed_rows

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


class StageOutput(NamedTuple):
    """What every training stage returns for a micro-batch; the train loop knows no more of it."""

    loss_sum: torch.Tensor
    """() fp32, with gradient: the loss summed over units."""
    num_units: int
    """Units summed over: trained tokens for SFT."""
    logs: dict[str, torch.Tensor]
    """Further sums over the same units, without gradient."""


class SupervisedFinetune(nn.Module):
    """A causal language model trained on the assistant's tokens.

    Args:
        llm: the model; with `lora` it is frozen and only the adapter is trained.
        lora: PEFT config of the adapter, or None for a full fine-tune.
        use_activation_checkpointing: recompute each layer's activations in the backward pass, to save memory.
        torch_dtype: of the matrix products in the forward pass (autocast); "auto" as in `models.load.load_llm`.

    Trained weights (adapters, or the whole model) are kept in fp32, frozen ones as they were loaded.

    Raises:
        ConfigError: the adapter's target modules match nothing, or a quantised model is to be trained in full.
    """

    def __init__(
        self,
        llm: PreTrainedModel,
        lora: PeftConfig | None = None,
        use_activation_checkpointing: bool = True,
        torch_dtype: DtypeName = "auto",
    ) -> None:
        super().__init__()
        self.compute_dtype = pick_dtype(torch_dtype, llm.device.type)
        self.packed_rows = supports_packed_rows(llm)
        self.keeps_logits = "logits_to_keep" in inspect.signature(llm.forward).parameters
        if use_activation_checkpointing:
            llm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            llm.enable_input_require_grads()
        if lora is None:
            if getattr(llm, "is_quantized", False):
                raise ConfigError("a model quantised to 4 or 8 bits cannot be trained in full. Use method='qlora'.")
            llm.requires_grad_(True).float()
            self.llm: Any = llm
        else:
            self.llm = _with_adapter(llm, lora)

    @property
    def has_adapter(self) -> bool:
        """True under LoRA and QLoRA: a checkpoint then holds the adapter alone."""
        return hasattr(self.llm, "peft_config")

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go."""
        return next(self.llm.parameters()).device

    def autocast(self) -> torch.autocast:
        """Matrix products in the training dtype, whatever dtype the weights are kept in."""
        dtype = self.compute_dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Name -> parameter of everything that is trained."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def save_pretrained(self, folder: Path) -> dict[str, torch.Tensor]:
        """Write the adapter, or the whole model in the training dtype, as PEFT or transformers reads it.

        Returns:
            fp32 weights that were written in fewer bits, as "master.PARAMETER"; training goes on from these.
        """
        if self.has_adapter:
            self.llm.save_pretrained(folder, save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)  # PEFT's own model card; convert writes a better one
            return {}
        cast: dict[int, torch.Tensor] = {}  # tied weights are cast once, so that they stay one tensor
        state = {}
        for name, tensor in self.llm.state_dict().items():
            state[name] = cast.setdefault(tensor.data_ptr(), tensor.to(self.compute_dtype))
        self.llm.save_pretrained(folder, state_dict=state, max_shard_size="2GB")
        config_file = folder / "config.json"
        config = json.loads(config_file.read_text())
        config["dtype"] = str(self.compute_dtype).removeprefix("torch.")
        config_file.write_text(json.dumps(config, indent=2) + "\n")
        if self.compute_dtype == torch.float32:
            return {}
        return {f"master.{name}": p.detach().cpu() for name, p in self.trainable_parameters().items()}

    def load_pretrained(self, folder: Path, masters: dict[str, torch.Tensor]) -> None:
        """Put back what `save_pretrained` wrote; `masters` are what it returned."""
        if self.has_adapter:
            from peft import set_peft_model_state_dict

            set_peft_model_state_dict(self.llm, load_file(folder / "adapter_model.safetensors"))
            return
        state: dict[str, torch.Tensor] = {}
        for file in sorted(folder.glob("model*.safetensors")):
            state.update(load_file(file))
        self.llm.load_state_dict(state, strict=False)  # tied weights are stored once
        parameters = self.trainable_parameters()
        for name, value in masters.items():
            parameters[name.removeprefix("master.")].data.copy_(value)

    def forward(self, micro: MicroBatch) -> StageOutput:
        """Loss of one flat row, summed over its trained tokens.

        In evaluation mode, `logs["correct"]` counts the trained tokens that the model puts first.
        """
        with self.autocast():
            logits = self._logits(micro)
        loss = token_cross_entropy(logits, micro.targets)
        logs = {} if self.training else {"correct": (logits.argmax(-1) == micro.targets).sum()}
        return StageOutput(loss, len(micro.targets), logs)

    def _logits(self, micro: MicroBatch) -> torch.Tensor:
        """(P, V): logits at the positions that predict a trained token, and at no other."""
        if not self.packed_rows:
            return self._logits_of_padded_rows(micro)
        keep: dict[str, Any] = {"logits_to_keep": micro.predict_at} if self.keeps_logits else {}
        logits = self.llm(
            input_ids=micro.input_ids,
            position_ids=micro.position_ids,
            cu_seq_lens_q=micro.cu_seqlens,
            cu_seq_lens_k=micro.cu_seqlens,
            max_length_q=micro.max_seqlen,
            max_length_k=micro.max_seqlen,
            use_cache=False,
            **keep,
        ).logits[0]
        return logits if self.keeps_logits else logits[micro.predict_at]

    def _logits_of_padded_rows(self, micro: MicroBatch) -> torch.Tensor:
        """The same for a model with attention code of its own: one padded row for each sample."""
        bounds = micro.cu_seqlens.tolist()
        rows = [micro.input_ids[0, a:b] for a, b in itertools.pairwise(bounds)]
        input_ids = pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=input_ids.device)
        real = torch.arange(input_ids.shape[1], device=input_ids.device) < lengths[:, None]  # (N, L)
        logits = self.llm(input_ids=input_ids, attention_mask=real.long(), use_cache=False).logits
        return logits[real][micro.predict_at]


def _with_adapter(llm: PreTrainedModel, lora: PeftConfig) -> nn.Module:
    from peft import get_peft_model

    try:
        with quiet_peft():
            model = get_peft_model(llm, lora)
    except ValueError as fault:
        raise ConfigError(f"model.lora: {' '.join(str(fault).split())[:300]}") from None
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.float()
        elif parameter.requires_grad:
            raise ConfigError(f"model.lora: {name} is quantised and cannot be trained.")
    return model

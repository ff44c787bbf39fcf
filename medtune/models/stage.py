"""What all training stages share: the model with or without an adapter, its dtypes, its logits, saving and loading."""

from __future__ import annotations

import inspect
import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from medtune.build import Positive
from medtune.data.collate import MicroBatch, StepBatch
from medtune.errors import ConfigError, EnvironmentFault, MedtuneError, ModelError
from medtune.files import read_json, write_json
from medtune.models import pissa
from medtune.models.checks import check_model
from medtune.models.load import DtypeName, pick_dtype, supports_packed_rows
from medtune.models.lora import LoraVariant, Method, with_adapter
from medtune.shards import read_header

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


class Stage(nn.Module):
    """A language model, perhaps with an adapter, and a loss on micro-batches; what all stages share.

    A stage of its own subclasses it: names `stage`, `forward`, `metrics`, and `count_units` if its unit is not the
    trained token. See docs/design/stages.md.

    Args:
        llm: the model; with `lora` it is frozen and only the adapter is trained.
        lora: PEFT config of the adapter, or None for a full fine-tune.
        use_activation_checkpointing: recompute each layer's activations in the backward pass, to save memory.
        torch_dtype: of the matrix products in the forward pass (autocast); "auto" as in `models.load.load_llm`.
        neftune_noise_alpha: while training, add uniform noise to the input embeddings, of at most alpha / sqrt(L d) for
            a sample of L tokens and d dimensions (NEFTune: Jain et al. 2023, arXiv 2310.05914). None adds none.
        method: what the config calls it, "full", "lora" or "qlora"; checked against `lora`. None: whatever `lora` says.
        lora_variant: "rslora", "dora" or "pissa", put into `lora` (see `models.lora.VARIANTS`).

    Trained weights (adapters, or the whole model) are kept in fp32, frozen ones as they were loaded.

    Raises:
        ConfigError: the adapter's target modules match nothing, or a quantised model is to be trained in full.
    """

    stage: ClassVar[str]
    """What `medtune.json` calls it."""
    kind: ClassVar[str] = "answers"
    """What it learns from a row, as `data.kinds` calls it; the data must be built so."""
    units: ClassVar[str] = "tokens"
    """What its loss is a mean over, in the plural: trained tokens, "pairs", "answers"."""
    train_logs: ClassVar[tuple[str, ...]] = ()
    """Names of the `logs` that `forward` returns while training: always these, so that ranks can sum them."""
    eval_logs: ClassVar[tuple[str, ...]] = ()
    """The same, in evaluation mode."""

    def __init__(
        self,
        llm: PreTrainedModel,
        lora: PeftConfig | None = None,
        use_activation_checkpointing: bool = True,
        torch_dtype: DtypeName = "auto",
        neftune_noise_alpha: Positive | None = None,
        method: Method | None = None,
        lora_variant: LoraVariant | None = None,
    ) -> None:
        super().__init__()
        self.compute_dtype = pick_dtype(torch_dtype, llm.device.type)
        self.packed_rows = supports_packed_rows(llm)
        self.keeps_logits = "logits_to_keep" in inspect.signature(llm.forward).parameters
        if use_activation_checkpointing:
            new_name = getattr(llm, "activation_checkpointing_enable", None)  # transformers 5.23 and later
            (new_name or llm.gradient_checkpointing_enable)({"use_reentrant": False})
            llm.enable_input_require_grads()
        if lora is None:
            if getattr(llm, "is_quantized", False):
                raise ConfigError("a model quantised to 4 or 8 bits cannot be trained in full. Use method='qlora'.")
            llm.requires_grad_(True).float()
            self.llm: Any = llm
        else:
            self.llm = with_adapter(llm, lora, lora_variant)
        self.initial_factors = pissa.factors_of(self.llm) if pissa.changes_base(lora) else None
        self._num_trained = sum(p.numel() for p in self.trainable_parameters().values())  # now, while they are whole
        self.neftune_noise_alpha = neftune_noise_alpha
        self._noise_bound: torch.Tensor | None = None
        if neftune_noise_alpha:
            self.llm.get_input_embeddings().register_forward_hook(self._add_noise)

    def count_units(self, batch: StepBatch) -> int:
        """Units of a step's micro-batches, by which its loss is divided; known before the first forward pass."""
        return batch.num_units

    def begin_step(self, micros: Iterable[MicroBatch], over_ranks: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Before the first forward pass of a step, or of a validation: what its losses must know of the whole of it.

        Args:
            micros: this rank's micro-batches, not yet on the device.
            over_ranks: sums a tensor over all ranks. All ranks begin a step together, also those without a micro-batch.
        """

    @abstractmethod
    def forward(self, micro: MicroBatch) -> StageOutput:
        """Loss of one micro-batch, summed over its units."""

    @abstractmethod
    def metrics(self, loss: float, logs: Mapping[str, float]) -> dict[str, float]:
        """What a user reads, from means over units: of the loss, and of the `logs`."""

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

    @property
    def saved_dtype(self) -> torch.dtype:
        """Of the weights that a checkpoint holds: adapters stay in the fp32 they are trained in."""
        return torch.float32 if self.has_adapter else self.compute_dtype

    def save_pretrained(self, folder: Path) -> dict[str, torch.Tensor]:
        """Write the weights as they are now; see `snapshot`."""
        return self.snapshot(copy=False)(folder)

    def snapshot(self, copy: bool) -> Callable[[Path], dict[str, torch.Tensor]]:
        """Take the weights; what is returned writes them into a folder, for PEFT or transformers to read.

        That is the adapter, or the whole model in the training dtype. The fp32 weights that it wrote in fewer bits it
        returns as "master.PARAMETER": training goes on from these.

        Args:
            copy: take tensors on the CPU that later steps do not change.
        """

        def taken(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
            return tensor.detach().to("cpu" if copy else tensor.device, dtype, copy=copy)

        if self.has_adapter:
            names = {id(p) for p in self.trainable_parameters().values()} if copy else set()
            trained = {name: taken(p, p.dtype) for name, p in self.llm.named_parameters() if id(p) in names}
            return lambda folder: self._write_adapter(folder, trained or None)
        cast: dict[int, torch.Tensor] = {}  # tied weights are cast once, so that they stay one tensor
        state = {}
        for name, tensor in self.llm.state_dict().items():
            if tensor.data_ptr() not in cast:
                cast[tensor.data_ptr()] = taken(tensor, self.compute_dtype)
            state[name] = cast[tensor.data_ptr()]
        masters = {}
        if self.compute_dtype != torch.float32:
            masters = {f"master.{n}": p.detach().to("cpu", copy=copy) for n, p in self.trainable_parameters().items()}
        return lambda folder: self._write_model(folder, state, masters)

    def _write_adapter(self, folder: Path, state: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
        self.llm.save_pretrained(folder, save_embedding_layers=False, state_dict=state)
        self._require_all(folder)
        if self.initial_factors is not None:
            pissa.save_plain(self.initial_factors, folder)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's own model card; convert writes a better one
        return {}

    def _write_model(
        self, folder: Path, state: dict[str, torch.Tensor], masters: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        self.llm.save_pretrained(folder, state_dict=state, max_shard_size="2GB")
        self._require_all(folder)
        config = read_json(folder / "config.json")
        config["dtype"] = str(self.compute_dtype).removeprefix("torch.")
        write_json(folder / "config.json", config)
        return masters

    def _require_all(self, folder: Path) -> None:
        """Every trained number must be on disk: parameters that are spread over processes are written empty, silently.

        Raises:
            EnvironmentFault: a file is shorter than what was written.
            MedtuneError: fewer were written.
        """
        try:
            written = sum(math.prod(t.shape) for file in folder.glob("*model*.safetensors") for t in read_header(file))
        except ModelError:
            raise EnvironmentFault(f"{folder}: the weights were not written whole; check the disk.") from None
        if written < self._num_trained:
            raise MedtuneError(
                f"{folder}: {written} numbers were written of {self._num_trained} that are trained, so the weights "
                "were not whole when they were saved; please report it. Checkpoints before it are as they were."
            )

    def load_pretrained(self, folder: Path, masters: dict[str, torch.Tensor]) -> None:
        """Put back what a `snapshot` wrote; `masters` are what that returned.

        Raises:
            ModelError: a tensor is missing.
            RuntimeError: one has another shape.
        """
        if self.has_adapter:
            from peft import set_peft_model_state_dict

            if self.initial_factors is not None:
                self.initial_factors = pissa.load_plain(self.llm, self.initial_factors, folder)
                return
            set_peft_model_state_dict(self.llm, load_file(folder / "adapter_model.safetensors"))
            return
        check_model(folder)
        # By transformers, which stores some families, mixtures of experts above all, under other names and shapes.
        saved, told = type(self.llm).from_pretrained(
            folder, config=self.llm.config, dtype=self.compute_dtype, use_safetensors=True, output_loading_info=True
        )
        if told["missing_keys"]:
            missing = sorted(told["missing_keys"])
            raise ModelError(f"{folder}: {len(missing)} tensors are missing, such as {missing[0]}.")
        self.llm.load_state_dict(saved.state_dict())
        parameters = self.trainable_parameters()
        for name, value in masters.items():
            parameters[name.removeprefix("master.")].data.copy_(value)

    def logits(self, micro: MicroBatch, llm: nn.Module | None = None) -> torch.Tensor:
        """(P, V): logits, in the training dtype, at the positions that predict a trained token, and at no other.

        Args:
            micro: the flat row.
            llm: another model than the one that is trained, a reference; None is the trained one.
        """
        if self.training and self.neftune_noise_alpha and llm is None:
            self._noise_bound = self._noise_bound_of(micro, self.neftune_noise_alpha)
        with self.autocast():
            logits = self._logits(micro, self.llm if llm is None else llm)
        self._noise_bound = None
        return logits

    def _noise_bound_of(self, micro: MicroBatch, alpha: float) -> torch.Tensor:
        """alpha / sqrt(L) of each position: (1, T, 1) of a packed row, (N, 1, 1) of padded ones."""
        lengths = micro.cu_seqlens.diff()
        bound = alpha / lengths.sqrt()
        return bound.repeat_interleave(lengths)[None, :, None] if self.packed_rows else bound[:, None, None]

    def _add_noise(self, module: nn.Module, inputs: Any, embedded: torch.Tensor) -> torch.Tensor:
        if self._noise_bound is None:
            return embedded
        bound = self._noise_bound / math.sqrt(embedded.shape[-1])
        noise = torch.empty_like(embedded, dtype=torch.float32).uniform_(-1, 1) * bound
        return embedded + noise.to(embedded.dtype)

    def _logits(self, micro: MicroBatch, llm: nn.Module) -> torch.Tensor:
        if not self.packed_rows:
            return self._logits_of_padded_rows(micro, llm)
        keep: dict[str, Any] = {"logits_to_keep": micro.predict_at} if self.keeps_logits else {}
        logits = llm(
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

    def _logits_of_padded_rows(self, micro: MicroBatch, llm: nn.Module) -> torch.Tensor:
        """The same for a model with attention code of its own: one padded row for each sample."""
        bounds = micro.cu_seqlens.tolist()
        rows = [micro.input_ids[0, a:b] for a, b in itertools.pairwise(bounds)]
        input_ids = pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=input_ids.device)
        real = torch.arange(input_ids.shape[1], device=input_ids.device) < lengths[:, None]  # (N, L)
        logits = llm(input_ids=input_ids, attention_mask=real.long(), use_cache=False).logits
        return logits[real][micro.predict_at]

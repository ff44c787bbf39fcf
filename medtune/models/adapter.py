"""What a LoRA adapter does to the weights it was trained on, as arithmetic on stored tensors.

PEFT stores, for a target module M of the base: `base_model.model.M.lora_A.weight` (r, in) and `lora_B.weight` (out, r);
`lora_embedding_A` (r, rows) and `lora_embedding_B` (columns, r) for an embedding; `lora_magnitude_vector` (out,) with
DoRA (https://arxiv.org/abs/2402.09353); and under M's own parameter names whatever it replaces (`modules_to_save`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.errors import ModelError
from medtune.models.checks import check_adapter
from medtune.shards import TORCH_NAMES, NewTensor, StoredTensor, blocks, copied, load, read_header, to_bytes

if TYPE_CHECKING:
    import torch

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "tok_embeddings.weight", "word_embeddings.weight")
HEAD = "lm_head.weight"
SCORE = "score.weight"
LORA_NAME = re.compile(r"(.+)\.lora_(embedding_)?(?:(A|B)(?:\.weight)?|(magnitude)_vector(?:\.weight)?)")
# Initialisations that leave the base weights as they were; the others train on changed ones (PiSSA, OLoRA, LoftQ ...).
INITS_THAT_KEEP_THE_BASE = (None, True, False, "gaussian", "eva", "orthogonal")
# Settings that change what the tensors mean, each of them off unless it is asked for.
UNSUPPORTED = ["lora_bias", "trainable_token_indices", "layer_replication", "target_parameters", "use_qalora"]
UNSUPPORTED += ["use_bdlora", "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config"]
UNSUPPORTED += ["megatron_config", "ensure_weight_tying"]


@dataclass
class Change:
    """What an adapter does to one base tensor: replace it, add to it, or both."""

    replacement: StoredTensor | None = None
    a: StoredTensor | None = None
    b: StoredTensor | None = None
    magnitude: StoredTensor | None = None
    scale: float = 1.0
    transposed: bool = False
    """True if the weight is stored (in, out): embeddings, and Conv1D (`fan_in_fan_out`)."""


def read_adapter(folder: Path) -> dict[str, Change]:
    """Read what an adapter folder changes, by the name of the base tensor; no weight is read yet.

    Raises:
        ModelError: the folder is not a LoRA adapter, is damaged, or uses a feature that cannot be merged exactly.
    """
    folder = Path(folder)
    config = _read_config(folder)
    changes: dict[str, Change] = {}
    for tensor in read_header(folder / WEIGHTS):
        if not tensor.name.startswith(PREFIX) or tensor.dtype not in TORCH_NAMES or not tensor.nbytes:
            raise ModelError(f"{folder / WEIGHTS}: {tensor.name!r} ({tensor.dtype}) is not a tensor of a LoRA adapter.")
        _assign(changes, tensor, config)
    for name, change in changes.items():
        lone = (change.a is None) != (change.b is None) or (change.a is None and change.magnitude is not None)
        if lone or (change.a and bool(config.get("use_dora")) != (change.magnitude is not None)):
            raise ModelError(f"{folder / WEIGHTS}: {name!r} lacks lora_A, lora_B or its DoRA vector.")
    if not changes:
        raise ModelError(f"{folder / WEIGHTS}: it holds no tensors; convert the checkpoint again.")
    return changes


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).exists():
        if (folder / "config.json").exists():
            raise ModelError(f"{folder}: this is a full model, not an adapter; there is nothing to merge.")
        raise ModelError(f"{folder}: no {CONFIG}; wanted the folder that `medtune convert pth_to_hf` wrote.")
    if not (folder / WEIGHTS).exists():
        raise ModelError(f"{folder}: no {WEIGHTS} ; a pickled .bin may run code and is not read.")
    config = check_adapter(folder)
    reason = None
    if config.get("bias", "none") != "none":
        reason = f"bias={config['bias']!r} trains biases that PEFT adds to the base only while it is loaded"
    elif config.get("init_lora_weights", True) not in INITS_THAT_KEEP_THE_BASE:
        reason = f"init_lora_weights={config['init_lora_weights']!r} changed the base weights before training"
    elif used := [key for key in UNSUPPORTED if config.get(key)]:
        reason = f"{used[0]} cannot be merged exactly"
    if reason:
        raise ModelError(f"{folder / CONFIG}: {reason}; use the adapter unmerged, `medtune chat BASE --adapter`.")
    return config


def _assign(changes: dict[str, Change], tensor: StoredTensor, config: dict[str, Any]) -> None:
    """Give one adapter tensor its one place."""
    name = tensor.name.removeprefix(PREFIX)
    if match := LORA_NAME.fullmatch(name):
        module, embedding, letter, magnitude = match.groups()
        slot = letter.lower() if letter else magnitude
        change = changes.setdefault(f"{module}.weight", Change())
        if letter:
            change.transposed = bool(embedding) or bool(config.get("fan_in_fan_out"))
        if slot == "a":
            change.scale = _scale(module, tensor, config)
    else:
        slot = "replacement"  # an embedding that is both trained and resized is stored under `base_layer`
        change = changes.setdefault(name.replace(".base_layer.", "."), Change())
    if (slot == "replacement" and "lora_" in name) or getattr(change, slot) is not None:
        raise ModelError(f"{tensor.file}: {tensor.name!r} is not a name that a LoRA adapter has once; was it edited?")
    setattr(change, slot, tensor)


def _scale(module: str, a: StoredTensor, config: dict[str, Any]) -> float:
    """alpha / r, or alpha / sqrt(r) for rsLoRA (https://arxiv.org/abs/2312.03732), by the module's own r and alpha."""
    rank = _of_module(module, config.get("rank_pattern"), config.get("r"))
    alpha = _of_module(module, config.get("alpha_pattern"), config.get("lora_alpha"))
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank != a.shape[0]:
        raise ModelError(f"{a.file}: {a.name!r} has shape {list(a.shape)}, which does not fit r={rank} of {CONFIG}.")
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _of_module(module: str, pattern: dict[str, Any] | None, default: Any) -> Any:
    """A module's entry in `rank_pattern` or `alpha_pattern`: the first key that matches the end of its name."""
    for key, value in (pattern or {}).items():
        try:
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        except re.error:
            raise ModelError(f"{CONFIG}: {key!r}, a rank or alpha pattern, is not a regular expression.") from None
    return default


def with_score(
    stored: dict[str, StoredTensor], config: dict[str, Any], changes: dict[str, Change], pad_token_id: int | None
) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """Put the score of a reward model's adapter where the base has its vocabulary's head; others stay as they are.

    Args:
        stored: the base's tensors.
        config: the base's, of a causal language model.
        changes: from `read_adapter`.
        pad_token_id: of the padding that transformers looks past to find the last token.

    Returns: the tensors and the config of a model for sequence classification.

    Raises:
        ModelError: transformers has no such model of this family.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as NAMES

    score = changes[SCORE].replacement if SCORE in changes else None
    if score is None or SCORE in stored:
        return stored, config
    family = config.get("model_type", "")
    if family not in NAMES:
        raise ModelError(f"{score.file}: a reward model's, but transformers has no classification model of {family!r}.")
    dtype = next(iter(stored.values())).dtype  # the adapter's own is fp32, in which it was trained
    labels = [f"LABEL_{i}" for i in range(score.shape[0])]
    changed = {
        "architectures": [NAMES[family]],
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "tie_word_embeddings": False,
        "pad_token_id": pad_token_id,
    }
    kept = {name: tensor for name, tensor in stored.items() if name != HEAD}
    return {**kept, SCORE: score._replace(name=SCORE, dtype=dtype)}, {**config, **changed}


def untie(
    stored: dict[str, StoredTensor], config: dict[str, Any], changes: dict[str, Change]
) -> tuple[dict[str, StoredTensor], dict[str, Any], bool]:
    """Part lm_head from the embedding where the adapter changes only one of them, or each differently.

    While PEFT runs, the adapter's part is added to one use of the shared weight and not to the other; a merge into
    the one tensor would change both.
    """
    embedding = next((name for name in stored if name.endswith(EMBEDDINGS)), None)
    tied = config.get("tie_word_embeddings", HEAD not in stored)
    if not tied or embedding is None or not {embedding, HEAD} & set(changes):
        return stored, config, False
    if _same_replacement(changes.get(embedding), changes.get(HEAD)):
        del changes[HEAD]
        return {name: tensor for name, tensor in stored.items() if name != HEAD}, config, False
    stored = {**stored, HEAD: stored[embedding]._replace(name=HEAD)}
    return stored, {**config, "tie_word_embeddings": False}, True


def _same_replacement(one: Change | None, other: Change | None) -> bool:
    """True if both replace the weight, do no more, and by the same bytes."""
    if not (one and other and one.replacement and other.replacement) or one.a or other.a:
        return False
    if one.replacement.shape != other.replacement.shape or one.replacement.dtype != other.replacement.dtype:
        return False
    pieces = (copied(one.replacement).chunks(), copied(other.replacement).chunks())
    return all(a == b for a, b in zip(*pieces, strict=True))


def resize(stored: dict[str, StoredTensor], config: dict[str, Any], changes: dict[str, Change]) -> dict[str, Any]:
    """Check replaced weights against the base's shapes; an embedding and a head may have another number of rows.

    Returns: the config, with the new `vocab_size`.

    Raises:
        ModelError: a shape does not fit, or the embedding and the head end with different rows.
    """
    rows, resized = set(), False
    for name, old in stored.items():
        new = (name in changes and changes[name].replacement) or old
        is_vocabulary = name == HEAD or name.endswith(EMBEDDINGS)
        if new.shape[is_vocabulary:] != old.shape[is_vocabulary:]:
            raise ModelError(f"{new.file}: {name!r} is {list(new.shape)}, in the base {list(old.shape)}.")
        if is_vocabulary:
            rows.add(new.shape[0])
            resized |= new.shape != old.shape
    if resized and len(rows) > 1:
        raise ModelError(f"the adapter's embedding and lm_head have {sorted(rows)} rows; both must have the same.")
    return {**config, "vocab_size": rows.pop()} if resized else config


def merged(weight: StoredTensor, change: Change, dtype: str, device: torch.device) -> NewTensor:
    """The tensor that `change` makes of a base weight, computed in fp32 and cast to `dtype` once.

    Args:
        weight: the base weight, (out, in), or (in, out) if the change is transposed.
        dtype: of the result, as safetensors writes it.
        device: where to compute.

    Raises:
        ModelError: the shapes do not fit; or, while it is written, a value is not finite.
    """
    weight = change.replacement._replace(name=weight.name) if change.replacement else weight
    if change.a is None or change.b is None:
        return copied(weight, dtype)
    a, b, magnitude = change.a, change.b, change.magnitude
    if weight.dtype not in TORCH_NAMES:
        raise ModelError(f"{weight.file}: {weight.name!r} is {weight.dtype}; only a 16- or 32-bit base can be merged.")
    pair = (b.shape[0], a.shape[-1])
    fits = len(a.shape) == len(b.shape) == 2 and a.shape[0] == b.shape[1]
    fits = fits and weight.shape == (pair[::-1] if change.transposed else pair)
    if not fits or (magnitude and math.prod(magnitude.shape) != b.shape[0]):
        raise ModelError(
            f"{a.file}: the adapter does not fit {weight.name!r}, {list(weight.shape)}: lora_A is {list(a.shape)}, "
            f"lora_B {list(b.shape)}. Was it trained on another base?"
        )
    return NewTensor(weight.name, dtype, weight.shape, lambda: _chunks(weight, change, dtype, device))


def _chunks(weight: StoredTensor, change: Change, dtype: str, device: torch.device) -> Iterator[memoryview]:
    """The bytes of the merged weight, block after block."""
    factor = _dora_factor(weight, change, device)
    row = 0
    for block in _sums(weight, change, device):
        if factor is not None:
            block *= factor if change.transposed else factor[row : row + len(block), None]
        row += len(block)
        yield to_bytes(block, dtype, weight.name)


def _sums(weight: StoredTensor, change: Change, device: torch.device) -> Iterator[torch.Tensor]:
    """W + scale * B @ A in fp32, in blocks (rows, columns) as the weight is stored."""
    assert change.a is not None and change.b is not None
    left, right = load(change.b).to(device), load(change.a).to(device)
    if change.transposed:
        left, right = right.T, left.T
    row = 0
    for block in blocks(weight):
        yield block.to(device).addmm_(left[row : row + len(block)], right, alpha=change.scale)
        row += len(block)


def _dora_factor(weight: StoredTensor, change: Change, device: torch.device) -> torch.Tensor | None:
    """DoRA's magnitude over the norm of the summed weight, per output (out,); None for plain LoRA."""
    import torch

    if change.magnitude is None:
        return None
    squares = [block.square().sum(0 if change.transposed else 1) for block in _sums(weight, change, device)]
    norm = (torch.stack(squares).sum(0) if change.transposed else torch.cat(squares)).sqrt()
    return load(change.magnitude).flatten().to(device) / norm

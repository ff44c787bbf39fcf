"""Old checkpoints -> folders that medtune, PEFT and transformers load: an adapter, or a full model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medtune import __version__
from medtune.convert import RECORD, is_tokenizer_file, new_folder, publish, with_dtype
from medtune.errors import ModelError
from medtune.files import read_json, write_json
from medtune.importer import old_weights
from medtune.model_card import model_card
from medtune.models.adapter import EMBEDDINGS, HEAD, LORA_NAME, PREFIX, WEIGHTS, read_adapter
from medtune.models.identity import fingerprint, model_tensors
from medtune.models.load import EMBEDDED, model_folder
from medtune.shards import TORCH_NAMES, StoredTensor, copied, parse_size, stored_chunks, write_file, write_model

WRAPPER = "llm."  # XTuner's SupervisedFinetune holds the model under this name
DERIVED = ".rotary_emb.inv_freq"  # old transformers stored it; it follows from the config
SHOWN = 3


def is_old_checkpoint(path: Path) -> bool:
    """True for what `import_checkpoint` is meant for: a file, or a folder that DeepSpeed wrote."""
    return path.is_file() or (path.is_dir() and any(path.glob("*model_states.pt")))


def import_checkpoint(
    checkpoint: Path, values: Mapping[str, Any], out: Path, fp32: bool = False, max_shard_size: str = "2GB"
) -> list[Path]:
    """Write an old checkpoint as an adapter folder, if it holds LoRA weights, or else as a model folder.

    Args:
        checkpoint: as for `importer.old_weights`.
        values: of the config it was trained with (`medtune.config.load(...).values`): `model.llm` names the base model,
            and `model.lora` gives alpha, which the checkpoint does not hold.
        out: a folder that does not exist yet, or is empty.
        fp32: cast the weights to fp32; else they keep the dtype they were stored in.
        max_shard_size: of a full model's weight files, for example "2GB".

    Returns: the files in `out`.

    Raises:
        ModelError: not such a checkpoint, or one that does not fit the config's LoRA or base model.
        UsageError, EnvironmentFault: as `convert.new_folder`.
    """
    max_bytes = parse_size(max_shard_size)
    files = [checkpoint] if checkpoint.is_file() else list(checkpoint.glob("*.pt"))
    with new_folder(out, 2 * sum(file.stat().st_size for file in files)) as folder:
        with old_weights(checkpoint, beside=folder) as stored:
            lora = [tensor for tensor in stored if "lora_" in tensor.name or ".modules_to" in tensor.name]
            if lora:
                record = _write_adapter(folder, lora, values, checkpoint, fp32)
            else:
                record = _write_model(folder, stored, values, checkpoint, fp32, max_bytes)
        write_json(folder / RECORD, record)
        (folder / "README.md").write_text(model_card(record), encoding="utf-8")
    return sorted(out.iterdir())


# ---------------------------------------------------------------- an adapter


def _write_adapter(
    folder: Path, stored: Sequence[StoredTensor], values: Mapping[str, Any], checkpoint: Path, fp32: bool
) -> dict[str, Any]:
    tensors = [tensor._replace(name=_peft_name(tensor.name)) for tensor in stored]
    lora = _lora_config(values, tensors, checkpoint)
    write_file(folder / WEIGHTS, [copied(tensor, "F32" if fp32 else None) for tensor in tensors])
    lora.save_pretrained(str(folder))
    try:
        read_adapter(folder)
    except ModelError as fault:
        reason = str(fault).removeprefix(str(folder)).lstrip("/")
        raise ModelError(f"{checkpoint}: no LoRA adapter that fits the config: {reason}") from None
    _copy_tokenizer(values, folder)
    method = "qlora" if (values["model"].get("llm") or {}).get("bits") else "lora"
    return _record(values, method, _local(_base_name(values)))


def _peft_name(name: str) -> str:
    """`llm.base_model.model.M.lora_A.default.weight`, as the model has it, to what PEFT writes in a file."""
    name = re.sub(r"\.(lora_\w+|modules_to_save)\.default(?=\.|$)", r".\1", name.removeprefix(WRAPPER))
    name = name.replace(".modules_to_save.", ".")
    return name if name.startswith(PREFIX) else PREFIX + name


def _lora_config(values: Mapping[str, Any], tensors: Sequence[StoredTensor], checkpoint: Path) -> Any:
    """The config's LoRA settings with the modules that the checkpoint really holds."""
    from medtune.build import build

    model = values.get("model")
    lora = build(model.get("lora")) if isinstance(model, dict) else None
    if lora is None:
        raise ModelError(f"{checkpoint}: it holds a LoRA adapter, and the config has no model.lora; name the config.")
    modules: set[str] = set()
    replaced: set[str] = set()
    for tensor in tensors:
        match = LORA_NAME.fullmatch(tensor.name.removeprefix(PREFIX))
        (modules if match else replaced).add((match[1] if match else tensor.name.rpartition(".")[0]).rpartition(".")[2])
        if match and match[3] == "A" and tensor.shape[0] != lora.r and not lora.rank_pattern:
            raise ModelError(
                f"{checkpoint}: {tensor.name!r} has rank {tensor.shape[0]}, the config's LoRA r={lora.r}; name the "
                "config it was trained with, or set lora_r and lora_alpha."
            )
    lora.target_modules = modules
    lora.modules_to_save = sorted(replaced) or None
    lora.base_model_name_or_path = _base_name(values)
    lora.inference_mode = True
    return lora


# ---------------------------------------------------------------- a full model


def _write_model(
    folder: Path,
    stored: Sequence[StoredTensor],
    values: Mapping[str, Any],
    checkpoint: Path,
    fp32: bool,
    max_bytes: int,
) -> dict[str, Any]:
    if not isinstance(values.get("model"), dict) or not _base_name(values):
        raise ModelError(f"{checkpoint}: it holds a full model, and the config names no base model for its settings.")
    base = model_folder(_base_name(values), values["model"]["llm"].get("revision"))
    config = read_json(base / "config.json")
    config.pop("auto_map", None)  # names code files, which are not taken along
    tensors = _fitted(stored, base, config, checkpoint)
    write_model(folder, [copied(tensor, "F32" if fp32 else None) for tensor in tensors], max_bytes)
    floats = [tensor for tensor in tensors if tensor.dtype in TORCH_NAMES]
    dtype = "F32" if fp32 else max(floats, key=lambda tensor: tensor.nbytes).dtype
    write_json(folder / "config.json", with_dtype(config, dtype))
    if (base / "generation_config.json").is_file():
        publish(base / "generation_config.json", folder)
    _copy_tokenizer(values, folder)
    return {**_record(values, "full", base), "torch_dtype": TORCH_NAMES[dtype]}


def _fitted(
    stored: Sequence[StoredTensor], base: Path, config: Mapping[str, Any], checkpoint: Path
) -> list[StoredTensor]:
    """The checkpoint's tensors under the base model's names, in the base's order, which they all must fit.

    An lm_head that is tied to the embedding may be in either, or not.

    Raises:
        ModelError: tensors are missing, are not the base's, or have other shapes.
    """
    wanted = model_tensors(base)
    tied = config.get("tie_word_embeddings", HEAD not in wanted)
    named = [tensor._replace(name=tensor.name.removeprefix(WRAPPER)) for tensor in stored]
    found = {tensor.name: tensor for tensor in named if not tensor.name.endswith(DERIVED)}
    needed = {name: tensor for name, tensor in wanted.items() if not name.endswith(DERIVED)}
    if tied:
        embedding = next((name for name in found if name.endswith(EMBEDDINGS)), "")
        needed.pop(HEAD, None)
        if HEAD in found and embedding in found and _same(found[HEAD], found[embedding]):
            del found[HEAD]
    faults = {
        "missing": [name for name in needed if name not in found],
        "not the base's": [name for name in found if name not in needed],
        "of another shape": [
            f"{name} {list(found[name].shape)} for {list(tensor.shape)}"
            for name, tensor in needed.items()
            if name in found and found[name].shape != tensor.shape
        ],
    }
    told = [f"{len(names)} {what}, such as {', '.join(names[:SHOWN])}" for what, names in faults.items() if names]
    if told:
        raise ModelError(
            f"{checkpoint}: its weights are not those of {base.name}: {'; '.join(told)}. "
            "Name the config it was trained with."
        )
    return [found[name] for name in needed]


def _same(one: StoredTensor, other: StoredTensor) -> bool:
    alike = (one.dtype, one.shape) == (other.dtype, other.shape)
    return alike and all(a == b for a, b in zip(stored_chunks(one), stored_chunks(other), strict=True))


# ---------------------------------------------------------------- of both


def _base_name(values: Mapping[str, Any]) -> str:
    return str((values["model"].get("llm") or {}).get("pretrained_model_name_or_path", ""))


def _local(name: str) -> Path | None:
    """The folder of a model that is here; None for one that a hub would have to give."""
    here = name in EMBEDDED or (name and Path(name).expanduser().is_dir())
    return model_folder(name) if here else None


def _record(values: Mapping[str, Any], method: str, base: Path | None) -> dict[str, Any]:
    """What `medtune.json` can say of a training that medtune did not do."""
    dataset = values.get("train_dataset") or {}
    template = dataset.get("prompt_template")
    return {
        "medtune_version": __version__,
        "stage": "sft",
        "method": method,
        "base_model": {"name_or_path": _base_name(values), "fingerprint": base and fingerprint(base)},
        "prompt_template": template if isinstance(template, str) else None,
        "system": str(dataset.get("system") or ""),
        "max_length": dataset.get("max_length"),
    }


def _copy_tokenizer(values: Mapping[str, Any], folder: Path) -> None:
    """The config's tokenizer, where it lies here."""
    source = _local(str((values.get("tokenizer") or {}).get("pretrained_model_name_or_path", "")))
    for file in sorted(source.iterdir()) if source else []:
        if file.is_file() and is_tokenizer_file(file.name):
            publish(file, folder)

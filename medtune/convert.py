"""From a training checkpoint to an adapter or model folder that others can load; no model is ever built."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from medtune.errors import ModelError, UsageError
from medtune.files import (
    MANIFEST,
    WANTED,
    check_files,
    fsync,
    fsync_tree,
    read_json,
    read_manifest,
    remove,
    require_space,
    write_json,
)
from medtune.model_card import model_card
from medtune.models.adapter import CONFIG as ADAPTER_CONFIG
from medtune.models.adapter import WEIGHTS as ADAPTER_WEIGHTS
from medtune.models.identity import model_tensors
from medtune.models.legacy.families import SaveFormat, layout_of
from medtune.models.legacy.layout import Layout, original
from medtune.shards import (
    TORCH_NAMES,
    NewTensor,
    StoredTensor,
    copied,
    parse_size,
    read_header,
    write_file,
    write_model,
)

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
VOCABULARY_FILES = ("tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "*.txt", "*.tiktoken")
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
RECORD = "medtune.json"
MASTERS = "optimizer.safetensors"
MASTER_PREFIX = "master."
SPARE = 64 << 20  # bytes of free disk wanted beyond the weights themselves


def pth_to_hf(
    checkpoint: Path,
    out: Path,
    *,
    config_text: str | None = None,
    fp32: bool = False,
    max_shard_size: str = "2GB",
    save_format: SaveFormat = "huggingface",
) -> list[Path]:
    """Publish a checkpoint folder: adapter or model, tokenizer, chat template, model card and config.

    Args:
        checkpoint: a folder that training wrote, `epoch_1.pth` or `iter_500.pth`.
        out: a folder that does not exist yet, or is empty.
        config_text: written as `medtune_config.py`; None takes the config inside the checkpoint.
        fp32: cast floating weights to fp32; the optimizer's fp32 masters are taken where the checkpoint has them.
        max_shard_size: of a full model's weight files, for example "2GB".
        save_format: "original" writes a full model as the authors of its base stored that one.

    Returns: the files in `out`.

    Raises:
        ModelError: not a checkpoint, or one of its files does not match its manifest.
        UsageError: `out` is in use, or the size is not one.
        EnvironmentFault: too little disk.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    max_bytes = parse_size(max_shard_size)
    names = _checked_files(checkpoint, masters=fp32)
    record = read_record(checkpoint)
    is_adapter = ADAPTER_WEIGHTS in names
    stored = read_header(checkpoint / ADAPTER_WEIGHTS) if is_adapter else list(model_tensors(checkpoint).values())
    tensors = _in_fp32(stored, checkpoint, MASTERS in names) if fp32 else [copied(tensor) for tensor in stored]
    base = _original_base(record, is_adapter) if save_format == "original" else None
    if base:
        tensors = original(tensors, _layout(base), checkpoint)
        names = [name for name in names if not _is_side_file(name)]
    with new_folder(out, sum(tensor.nbytes for tensor in tensors)) as folder:
        if base:
            publish_original(base, folder)
        for name in names:
            if _is_side_file(name):
                shutil.copyfile(checkpoint / name, folder / name)
        if is_adapter:
            write_file(folder / ADAPTER_WEIGHTS, tensors)
        else:
            write_model(folder, tensors, max_bytes)
        if fp32:
            record["torch_dtype"] = "float32"
            if not is_adapter:
                source = base or checkpoint
                write_json(folder / "config.json", with_dtype(read_json(source / "config.json"), "F32"))
        elif base:
            write_json(folder / "config.json", with_dtype(read_json(base / "config.json"), tensors[0].dtype))
        write_json(folder / RECORD, record)
        if config_text is None and "config.py" in names:
            config_text = (checkpoint / "config.py").read_text(encoding="utf-8")
        if config_text is not None:
            (folder / "medtune_config.py").write_text(config_text, encoding="utf-8")
        (folder / "README.md").write_text(model_card(record), encoding="utf-8")
    return sorted(out.iterdir())


def _original_base(record: dict[str, Any], is_adapter: bool) -> Path:
    """The folder of the base that a full model was trained from, which has a layout of its own.

    Raises:
        UsageError: an adapter, or another base, or one that is not here.
    """
    if is_adapter:
        raise UsageError(
            "--save-format original: an adapter has the names of transformers' class; merge it by "
            "`medtune convert merge BASE ADAPTER OUT --save-format original`."
        )
    base = Path(str(record["base_model"].get("name_or_path")))
    if not base.is_dir() or layout_of(base) is None:
        raise UsageError(
            f"--save-format original: {base}, the base of this checkpoint, is no folder here with a model that came "
            "with code of its own; leave the option out."
        )
    return base


def _layout(base: Path) -> Layout:
    found = layout_of(base)
    assert found is not None
    return found


def publish_original(base: Path, folder: Path) -> None:
    """Copy what makes a base's own layout complete: tokenizer, generation settings and its code, which never runs."""
    for file in sorted(base.iterdir()):
        if file.is_file() and (_is_side_file(file.name) or file.suffix == ".py") and file.name != "config.json":
            publish(file, folder)


def _is_side_file(name: str) -> bool:
    """True for what is published as it is: everything but the weights, the config and the training state."""
    return name in (ADAPTER_CONFIG, "config.json", "generation_config.json") or is_tokenizer_file(name)


def is_tokenizer_file(name: str) -> bool:
    """True for a file of a tokenizer or its chat template."""
    return any(fnmatch(name, pattern) for pattern in (*TOKENIZER_FILES, *VOCABULARY_FILES, *TEMPLATE_FILES))


def publish(file: Path, folder: Path) -> None:
    """Copy a file, but never what a link in a download leads to elsewhere; a hub's cache links to its `blobs`."""
    home = file.parent.resolve()
    if not file.resolve().is_relative_to(home) and not file.resolve().is_relative_to(home.parent.parent / "blobs"):
        raise ModelError(
            f"{file}: a link that leads out of its folder; it is not published. Put the file itself there."
        )
    shutil.copyfile(file, folder / file.name)


def _checked_files(checkpoint: Path, masters: bool) -> list[str]:
    """Names of the files to read, each compared with the manifest; the training state only as far as it is needed."""
    listed = read_manifest(checkpoint)
    names = [name for name in sorted(listed) if _is_side_file(name) or name in (RECORD, "config.py", ADAPTER_WEIGHTS)]
    names += [name for name in listed if fnmatch(name, "model*.safetensors*") or (masters and name == MASTERS)]
    names = [name for name in names if Path(name).name == name]
    check_files(checkpoint, names)
    complete = {ADAPTER_WEIGHTS, ADAPTER_CONFIG} <= set(names) or "config.json" in names
    if RECORD not in names or not complete:
        raise ModelError(f"{checkpoint / MANIFEST}: neither an adapter nor a model with {RECORD} is in it; {WANTED}.")
    return names


def _in_fp32(stored: list[StoredTensor], checkpoint: Path, has_masters: bool) -> list[NewTensor]:
    """Each tensor in fp32: the optimizer's own copy where there is one, else the stored one cast up."""
    masters = {t.name: t for t in read_header(checkpoint / MASTERS)} if has_masters else {}
    tensors = []
    for tensor in stored:
        master = masters.get(MASTER_PREFIX + tensor.name)
        if master and (master.dtype, master.shape) == ("F32", tensor.shape):
            tensor = master._replace(name=tensor.name)
        tensors.append(copied(tensor, "F32"))
    return tensors


def read_record(folder: Path) -> dict[str, Any]:
    """What medtune wrote about an adapter or model when it was trained; empty if it came from elsewhere.

    Raises:
        ModelError: `medtune.json` is damaged.
    """
    if not (folder / RECORD).exists():
        return {}
    record = read_json(folder / RECORD)
    for key in ("base_model", "data", "progress", "versions"):
        if not isinstance(record.setdefault(key, {}), dict):
            raise ModelError(f"{folder / RECORD}: {key!r} must be an object; convert the checkpoint again.")
    for key in ("system", "prompt_template", "stage", "method"):
        if not isinstance(record.get(key, ""), str | None):
            raise ModelError(f"{folder / RECORD}: {key!r} must be a text; convert the checkpoint again.")
    return record


def with_dtype(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """A model config whose `dtype` (`torch_dtype` before transformers 5) says what the weights are."""
    key = "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"
    return {**config, key: TORCH_NAMES[dtype]}


@contextmanager
def new_folder(out: Path, nbytes: int) -> Iterator[Path]:
    """Give a hidden folder beside `out` to fill; it becomes `out` at the end, or is removed on a fault.

    Args:
        out: must not exist, or be an empty folder.
        nbytes: what will be written, checked against the free disk before anything is.

    Raises:
        UsageError: `out` exists and is not empty, or another process is writing it.
        EnvironmentFault: too little disk.
    """
    import fcntl

    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: already there and not empty; name a new folder, or remove this one first.")
    out.parent.mkdir(parents=True, exist_ok=True)
    require_space(out.parent, nbytes + SPARE)
    folder = out.parent / f".{out.name}.partial"
    if folder.is_symlink():  # never clear what it points to
        folder.unlink()
    folder.mkdir(exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)  # the lock goes with the process: what a killed one left is free to clear
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{out}: another medtune is writing it; wait for that one or name a new folder.") from None
        try:
            _clear(folder)
            yield folder
            fsync_tree(folder)
            folder.rename(out)
            fsync(out.parent)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def _clear(folder: Path) -> None:
    for file in folder.iterdir():
        remove(file)

"""Which base model is this? Its weight files, and a fingerprint that does not depend on how they are cut or named."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePath
from typing import Any

from medtune.errors import ModelError
from medtune.files import read_json
from medtune.shards import INDEX, SINGLE, StoredTensor, read_header

WINDOW = 4096  # bytes per sample
WINDOWS = 8  # samples per tensor: the first, the last and six between


def model_files(folder: Path) -> list[Path]:
    """List the safetensors files of a model folder, in the order of their names.

    Raises:
        ModelError: the folder has none, or one that its index names is missing or damaged; the message names it.
    """
    return sorted({tensor.file for tensor in model_tensors(folder).values()})


def model_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Describe every tensor of a model folder by name, file after file; no weight is read.

    Raises:
        ModelError: as `model_files`.
    """
    folder = Path(folder)
    if (folder / SINGLE).exists():  # transformers, too, prefers it to an index
        return {tensor.name: tensor for tensor in read_header(folder / SINGLE)}
    if not (folder / INDEX).exists():
        raise ModelError(f"{folder}: {_what_it_is(folder)}; wanted a model folder with {SINGLE} or {INDEX}.")
    where = read_json(folder / INDEX).get("weight_map")
    if not isinstance(where, dict) or not where or not all(_is_plain_name(name) for name in where.values()):
        raise ModelError(f"{folder / INDEX}: no 'weight_map' of tensor names to file names; fetch it again.")
    tensors = {t.name: t for name in sorted(set(where.values())) for t in read_header(folder / name)}
    for name, file in where.items():
        if name not in tensors or tensors[name].file.name != file:
            raise ModelError(f"{folder / file}: {name!r}, which {INDEX} places there, is missing; fetch it again.")
    return tensors


def fingerprint(model_folder: Path) -> str | None:
    """Identify base weights, whatever their sharding and file names; well under a second for a 7B.

    The sha256 over every tensor in order of name: name, type, shape, and eight 4 KiB windows spread evenly over its
    bytes (all of them if it is smaller).

    Returns: 64 hex digits; None if the folder has only `.bin` weights, which cannot be read without unpickling.

    Raises:
        ModelError: the folder has no weights, or a damaged file.
    """
    folder = Path(model_folder)
    if not (folder / SINGLE).exists() and not (folder / INDEX).exists() and _bin_files(folder):
        return None
    digest = hashlib.sha256()
    for _, tensor in sorted(model_tensors(folder).items()):
        digest.update(f"{tensor.name}\0{tensor.dtype}\0{tensor.shape}\0".encode())
        with tensor.file.open("rb", buffering=0) as stream:
            for offset in _window_offsets(tensor.nbytes):
                stream.seek(tensor.start + offset)
                digest.update(stream.read(min(WINDOW, tensor.nbytes - offset)))
    return digest.hexdigest()


def require_same_base(base: Path, record: dict[str, Any], adapter: Path) -> None:
    """Refuse an adapter for another base than the one its `medtune.json` names by fingerprint.

    An adapter without such a record, and a base without safetensors to fingerprint, pass.

    Raises:
        ModelError: the fingerprints differ.
    """
    trained_on = record.get("base_model", {})
    wanted = trained_on.get("fingerprint")
    got = fingerprint(base) if wanted else None
    if got != wanted and got:
        raise ModelError(
            f"{base}: not the base that {adapter} was trained on ({trained_on.get('name_or_path')}): the weights "
            "differ. Name that one, or add --any-base to try it all the same."
        )


def _window_offsets(nbytes: int) -> list[int]:
    if nbytes <= WINDOW * WINDOWS:
        return list(range(0, nbytes, WINDOW))
    return [(nbytes - WINDOW) * i // (WINDOWS - 1) for i in range(WINDOWS)]


def _is_plain_name(name: object) -> bool:
    """An index comes from a download: it may name files beside it, nothing else."""
    return isinstance(name, str) and PurePath(name).name == name and name.endswith(".safetensors")


def _bin_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("pytorch_model*.bin"))


def _what_it_is(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    if _bin_files(folder):
        return "its weights are pickled .bin files, which may run code; convert them to safetensors first"
    if (folder / "adapter_config.json").exists():
        return "this is an adapter"
    return "there are no weights in it"

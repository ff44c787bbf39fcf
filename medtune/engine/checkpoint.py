"""Checkpoint folders: written whole or not at all, verified before they are read. Safetensors and JSON only.

Files of a folder are listed in docs/design/architecture.md; `manifest.json`, with the sha256 of each, is written last.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from medtune.errors import ModelError, UsageError

MANIFEST = "manifest.json"
LAST = "last_checkpoint"
LOCK = ".lock"
NAME = re.compile(r"^(epoch|iter)_(\d+)\.pth$")


# ---------------------------------------------------------------- folders


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write(temporary folder)` fill a folder, then put it at `folder` in one rename.

    Every file is fsynced and hashed into the manifest before the rename; a fault or a kill at any moment leaves
    either the complete folder or a hidden temporary one, which nothing reads.
    """
    temporary = folder.with_name(f".tmp-{folder.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True, mode=0o700)
    try:
        write(temporary)
        files = sorted(f for f in temporary.rglob("*") if f.is_file())
        listed = {str(f.relative_to(temporary)): {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in files}
        write_json(temporary / MANIFEST, {"files": listed})
        for file in [*files, temporary / MANIFEST]:
            file.chmod(0o600)
            fsync(file)
        fsync(temporary)
        replaced = None
        if folder.exists():
            replaced = folder.with_name(f".old-{folder.name}-{os.getpid()}")
            folder.rename(replaced)
        temporary.rename(folder)
        fsync(folder.parent)
        if replaced is not None:
            shutil.rmtree(replaced)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def clear_leftovers(work_dir: Path) -> None:
    """Undo what a killed save left in a run's folder: drop half-written folders, put replaced ones back.

    Call it only while holding the folder's lock: another process's save looks the same.
    """
    for half_written in work_dir.glob(".tmp-*"):
        shutil.rmtree(half_written)
    for replaced in work_dir.glob(".old-*"):
        folder = work_dir / replaced.name.removeprefix(".old-").rpartition("-")[0]
        if folder.exists():
            shutil.rmtree(replaced)
        else:
            replaced.rename(folder)


@contextmanager
def lock(work_dir: Path) -> Iterator[None]:
    """One writer for a run's folder: an advisory lock that the kernel drops when the process ends, however it ends.

    Raises:
        UsageError: another process has it.
    """
    work_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (work_dir / LOCK).open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"{work_dir}: another training writes there. Use another --work-dir.") from None
        yield


def verify(folder: Path) -> None:
    """Check a checkpoint folder against its manifest.

    Raises:
        ModelError: it is no checkpoint folder, or names the first file that is missing, short or changed.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise ModelError(f"{folder}: not a medtune checkpoint: a folder such as epoch_1.pth with a {MANIFEST} in it.")
    try:
        listed = json.loads(manifest.read_text())["files"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        raise ModelError(f"{manifest}: damaged; use another checkpoint.") from None
    for name, wanted in listed.items():
        file = folder / name
        if not file.is_file():
            raise ModelError(f"{file}: missing from the checkpoint; use another one.")
        if file.stat().st_size != wanted["bytes"] or sha256(file) != wanted["sha256"]:
            raise ModelError(f"{file}: damaged (its sha256 is not the manifest's); use another checkpoint.")


def find_checkpoints(work_dir: Path) -> list[Path]:
    """Checkpoint folders of a run, newest first, by the optimizer step they were saved at."""
    found = [f for f in work_dir.iterdir() if NAME.match(f.name) and f.is_dir()] if work_dir.is_dir() else []
    return sorted(found, key=lambda f: (_step_of(f), f.stat().st_mtime), reverse=True)


def _step_of(folder: Path) -> int:
    try:
        return int(json.loads((folder / "state.json").read_text())["progress"]["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return -1


def newest_valid(work_dir: Path, warn: Callable[[str], None]) -> Path | None:
    """Newest checkpoint of a run that verifies; the broken ones before it are named to `warn`."""
    found = find_checkpoints(work_dir)
    for folder in sorted(found, key=lambda f: _step_of(f) >= 0):  # one of unreadable step may be the newest: tell it
        try:
            verify(folder)
        except ModelError as fault:
            warn(f"skipped: {fault}")
        else:
            return folder
    return None


def point_last_to(folder: Path) -> None:
    """Write `last_checkpoint`, a text file with the checkpoint's relative name, beside it."""
    pointer = folder.parent / LAST
    temporary = pointer.with_name(f".{LAST}-{os.getpid()}")
    temporary.write_text(folder.name + "\n")
    fsync(temporary)
    temporary.replace(pointer)


def sha256(file: Path) -> str:
    """Hex sha256 of a file."""
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fsync(path: Path) -> None:
    """Push a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(file: Path, value: Any) -> None:
    """Write readable JSON."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- states


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: dict[int, str]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors, named "KEY.PARAMETER", and plain numbers.

    Args:
        optimizer: any torch optimizer.
        names: id of a parameter -> its name in the model.
    """
    order = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    state = optimizer.state_dict()
    tensors, numbers = {}, {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{key}.{order[index]}"] = value.detach().cpu().contiguous()
            else:
                numbers[f"{key}.{order[index]}"] = value
    return tensors, {"param_groups": state["param_groups"], "numbers": numbers, "order": order}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> None:
    """Put back what `optimizer_tensors` took."""
    index = {name: i for i, name in enumerate(plain["order"])}
    state: dict[int, dict[str, Any]] = {}
    for entry, value in [*tensors.items(), *plain["numbers"].items()]:
        key, _, name = entry.partition(".")
        if key != "master":
            state.setdefault(index[name], {})[key] = value
    groups = [dict(group) for group in plain["param_groups"]]
    for group, current in zip(groups, optimizer.state_dict()["param_groups"], strict=True):
        group.update({k: tuple(v) for k, v in group.items() if isinstance(current.get(k), tuple)})
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def save_random_state(file: Path) -> None:
    """Save the state of Python's, NumPy's, torch's and this process's GPU's random generators."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    tensors = {
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    plain = {"python_gauss": gauss, "numpy": [name, int(position), int(has_gauss), float(cached)]}
    save_file(tensors, file, metadata={"plain": json.dumps(plain)})


def load_random_state(file: Path) -> None:
    """Restore what `save_random_state` saved."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as stream:
        plain = json.loads(stream.metadata()["plain"])
    tensors = load_file(file)
    version, *words = tensors["python"].tolist()
    random.setstate((version, tuple(words), plain["python_gauss"]))
    name, position, has_gauss, cached = plain["numpy"]
    np.random.set_state((name, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])

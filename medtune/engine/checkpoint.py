"""Checkpoint folders: written whole or not at all, verified before they are read. Safetensors and JSON only.

Files of a folder are listed in docs/design/architecture.md; `manifest.json`, with the sha256 of each, is written last.
Links in a run's folder are never followed and files of others never deleted.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from medtune.errors import EnvironmentFault, MedtuneError, ModelError, UsageError, printable
from medtune.files import (
    MANIFEST,
    check_files,
    fsync,
    fsync_tree,
    read_json,
    read_manifest,
    remove,
    require_space,
    write_manifest,
)
from medtune.shards import read_header

LAST = "last_checkpoint"
BEST = "best_checkpoint"
LOCK = ".lock"
NAME = re.compile(r"^(epoch|iter)_(\d+)\.pth$")
REHEARSAL = ".tmp-rehearsal"
LEFTOVER = re.compile(r"^(?:\.tmp-)?\.(tmp|old)-((?:epoch|iter)_\d+\.pth|rehearsal)(?:-\d+)?$")
SPARE = 1.2  # free disk wanted before a save, in sizes of the last checkpoint


# ---------------------------------------------------------------- writing


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write(temporary folder)` fill a folder, then put it at `folder` in one rename.

    Every file is checked, hashed into the manifest and fsynced before the rename; a fault or a kill at any moment
    leaves either the complete folder or a hidden temporary one, which nothing reads.
    """
    temporary, replaced = (folder.with_name(f".{kind}-{folder.name}-{os.getpid()}") for kind in ("tmp", "old"))
    try:
        remove(temporary)
        temporary.mkdir(parents=True, mode=0o700)
        write(temporary)
        _check_written(temporary)
        write_manifest(temporary)
        for path in temporary.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        fsync_tree(temporary)
        _make_room(folder, replaced)
        temporary.rename(folder)
        fsync(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)
        raise
    remove(replaced)


def _check_written(folder: Path) -> None:
    """Read every safetensors header and JSON file back: a library that lost bytes in silence is noticed here.

    So is a tensor without an element, which is what a parameter looks like whose numbers lie in other processes.
    """
    for file in folder.rglob("*"):
        try:
            if file.suffix == ".safetensors":
                empty = [tensor.name for tensor in read_header(file) if not tensor.nbytes]
                if empty:
                    raise MedtuneError(f"{folder}: {file.name} was written without a number in {empty[0]!r}.")
            elif file.suffix == ".json":
                read_json(file)
        except ModelError:
            raise EnvironmentFault(f"{folder}: {file.name} was not written whole; check the disk.") from None


def _make_room(folder: Path, replaced: Path) -> None:
    """Move what has a new checkpoint's name: an older checkpoint to `replaced`, to be deleted; else aside, to stay."""
    if _is_ours(folder):
        folder.rename(replaced)
    elif os.path.lexists(folder):
        number = 1
        while os.path.lexists(aside := folder.with_name(f"{folder.name}.aside{number}")):
            number += 1
        folder.rename(aside)


def _is_ours(folder: Path) -> bool:
    return not folder.is_symlink() and (folder / MANIFEST).is_file()


def point_last_to(folder: Path, name: str = LAST) -> None:
    """Write `last_checkpoint` (or BEST), a text file with the checkpoint's relative name, beside it."""
    pointer = folder.parent / name
    temporary = pointer.with_name(f".{name}-{os.getpid()}")
    remove(temporary)
    temporary.write_text(folder.name + "\n")
    fsync(temporary)
    temporary.replace(pointer)
    fsync(folder.parent)


def best_of(work_dir: Path) -> Path | None:
    """The checkpoint that `best_checkpoint` names, if there is one."""
    pointer = work_dir / BEST
    folder = work_dir / pointer.read_text().strip() if pointer.is_file() else work_dir
    return folder if NAME.match(folder.name) and folder.is_dir() else None


@contextmanager
def disk_faults(folder: Path) -> Iterator[None]:
    """Turn a disk's fault while `folder` is saved, also as the Rust libraries tell it, into one line.

    Raises:
        EnvironmentFault: with the reason and what to do.
    """
    try:
        yield
    except Exception as fault:
        told = re.search(r"\(os error (\d+)\)", str(fault))
        number = fault.errno if isinstance(fault, OSError) else int(told[1]) if told else None
        if number is None:
            raise
        file = getattr(fault, "filename", None)
        raise EnvironmentFault(
            f"{folder}: not saved: {os.strerror(number)}{f' ({Path(file).name})' if file else ''}. Checkpoints before "
            "it are as they were; mend the disk or make room, then run the same command with --resume auto."
        ) from fault


def require_room(folder: Path) -> None:
    """Raise EnvironmentFault if the disk has less free than `SPARE` times the last checkpoint beside `folder`."""
    for last in find_checkpoints(folder.parent):
        with suppress(ModelError, TypeError, KeyError):  # a broken one: the next will do
            nbytes = sum(entry["bytes"] for entry in read_manifest(last).values())
            require_space(folder.parent, SPARE * nbytes, "Make room, then run the same command with --resume auto.")
            return


def remove_surplus(
    saved: Path, limit: int, spare: Collection[str] = (), warn: Callable[[str], None] = print
) -> list[Path]:
    """Remove a run's oldest checkpoints beyond `limit`, once `saved` verifies; it is never among them.

    Args:
        saved: the newest checkpoint.
        limit: checkpoints kept; 0 counts as 1.
        spare: names of checkpoints that stay and do not count, such as the best.
        warn: told when the disk does not let one go; the next call tries again.

    Returns: what was removed.

    Raises:
        ModelError: `saved` does not verify; nothing was removed.
    """
    others = [f for f in find_checkpoints(saved.parent) if f != saved and f.name not in spare and _is_ours(f)]
    surplus = others[max(limit, 1) - 1 :]
    if surplus:
        verify(saved)
    removed = []
    for folder in surplus:
        leaving = folder.with_name(f".tmp-{folder.name}-{os.getpid()}")
        try:
            folder.rename(leaving)  # gone at once: a kill leaves no half of a checkpoint
            remove(leaving)
            removed.append(folder)
        except OSError as fault:
            warn(f"{folder}: not removed: {fault.strerror}; tried again later.")
    return removed


# ---------------------------------------------------------------- a run's folder


def clear_leftovers(work_dir: Path) -> None:
    """Undo what a killed save left in a run's folder: drop half-written folders, put replaced ones back.

    Call it only while holding the folder's lock: another process's save looks the same.
    """
    for path in [*work_dir.iterdir()]:
        leftover = LEFTOVER.match(path.name)
        if leftover and leftover[1] == "old" and _is_ours(path) and not os.path.lexists(work_dir / leftover[2]):
            path.rename(work_dir / leftover[2])
        elif leftover or re.match(rf"^\.({LAST}|{BEST})-\d+$", path.name):
            remove(path)


@contextmanager
def lock(work_dir: Path) -> Iterator[None]:
    """One writer for a run's folder: an advisory lock that the kernel drops when the process ends, however it ends.

    Raises:
        UsageError: another process has it.
    """
    work_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = work_dir / LOCK
    if file.is_symlink():
        file.unlink()
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{work_dir}: another training writes there. Use another --work-dir.") from None
        yield
    finally:
        os.close(handle)


def verify(folder: Path) -> None:
    """Check a checkpoint folder against its manifest.

    Raises:
        ModelError: it is no checkpoint folder, or names the first file that is missing, short or changed.
    """
    check_files(folder)


def find_checkpoints(work_dir: Path) -> list[Path]:
    """Checkpoint folders of a run, newest first, by the optimizer step they were saved at. Links are not among them."""
    found = [f for f in work_dir.iterdir() if NAME.match(f.name)] if work_dir.is_dir() else []
    found = [f for f in found if f.is_dir() and not f.is_symlink()]
    return sorted(found, key=lambda f: (step_of(f), f.stat().st_mtime), reverse=True)


def step_of(folder: Path) -> int:
    """Optimizer step that a checkpoint was saved at; -1 if its `state.json` does not tell."""
    try:
        return int(json.loads((folder / "state.json").read_text())["progress"]["step"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return -1


def newest_valid(work_dir: Path, warn: Callable[[str], None]) -> Path | None:
    """Newest checkpoint of a run that verifies; the broken ones before it are named to `warn`."""
    found = find_checkpoints(work_dir)
    for folder in sorted(found, key=lambda f: step_of(f) >= 0):  # one of unreadable step may be the newest: tell it
        try:
            verify(folder)
        except ModelError as fault:
            warn(printable(f"skipped: {fault}"))
        else:
            return folder
    return None


# ---------------------------------------------------------------- states


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: dict[int, str], copy: bool = False
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors, named "KEY.PARAMETER", and plain numbers.

    Args:
        optimizer: any torch optimizer.
        names: id of a parameter -> its name in the model.
        copy: give tensors that later steps do not change.
    """
    order = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    state = optimizer.state_dict()
    tensors, numbers = {}, {}
    for index, entries in state["state"].items():
        for key, value in _flat_entries(entries):
            if isinstance(value, torch.Tensor):
                tensors[f"{key}.{order[index]}"] = value.detach().to("cpu", copy=copy).contiguous()
            else:
                numbers[f"{key}.{order[index]}"] = value
    return tensors, {"param_groups": state["param_groups"], "numbers": numbers, "order": order}


def _flat_entries(entries: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Entries of a parameter's state.

    bitsandbytes nests its quantised ones in a dict, and takes them back flat too. All parameters share one code table,
    which safetensors would refuse.
    """
    for key, value in entries.items():
        if isinstance(value, dict):
            yield from ((k, v.clone() if k.startswith("qmap") else v) for k, v in value.items())
        else:
            yield key, value


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


def random_state() -> bytes:
    """Take the states of Python's, NumPy's, torch's and this process's GPU's random generators: a safetensors file."""
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
    return save(tensors, metadata={"plain": json.dumps(plain)})


def save_random_states(folder: Path, states: Sequence[bytes]) -> None:
    """Save what `random_state` took on each rank, as `rank_00000.safetensors` and so on."""
    for rank, state in enumerate(states):
        (folder / f"rank_{rank:05d}.safetensors").write_bytes(state)


def load_random_state(file: Path) -> None:
    """Restore what `random_state` took, from its file."""
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

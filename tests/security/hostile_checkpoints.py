"""Hostile checkpoint folders and work dirs, with manifests that fit, as an attacker would write them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hostile import SECRET, World, artefact
from hostile_files import ESCAPES, Calls, python, shell
from safetensors.torch import load_file, save_file


def seal(folder: Path) -> Path:
    """A manifest that fits what lies in the folder, as an attacker would write it."""
    (folder / "manifest.json").unlink(missing_ok=True)
    listed = {file.name: digest(file) for file in folder.iterdir() if file.is_file()}
    (folder / "manifest.json").write_text(json.dumps({"files": listed}))
    return folder


def digest(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def checkpoint_copy(world: World, folder: Path) -> Path:
    return Path(shutil.copytree(world.checkpoint, folder / "iter_1.pth"))


def checkpoint_file(name: str, file: str, content: Callable[[World], str | bytes], fast: bool = False) -> None:
    """A checkpoint with one other file, and a manifest that fits."""

    def make(world: World, folder: Path) -> Path:
        target = checkpoint_copy(world, folder)
        text = content(world)
        (target / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        return seal(target)

    make.__name__ = name
    artefact("checkpoint", fast)(make)


def state(**changes: Any) -> Callable[[World], str]:
    return lambda world: json.dumps({**json.loads((world.checkpoint / "state.json").read_text()), **changes})


checkpoint_file("checkpoint_config", "config.py", python, fast=True)
checkpoint_file("checkpoint_modules", "torch.py", python)
checkpoint_file("checkpoint_sitecustomize", "usercustomize.py", python)
checkpoint_file("checkpoint_record_deep", "medtune.json", lambda w: '{"a":' * 100_000)
checkpoint_file("checkpoint_record_list", "medtune.json", lambda w: "[]")
checkpoint_file(
    "checkpoint_state_setattr", "state.json", state(progress={"__class__": "os", "step": 1, "run": 2}), fast=True
)
checkpoint_file("checkpoint_state_text", "state.json", state(progress={"step": python}.keys().__repr__()))
checkpoint_file("checkpoint_state_deep", "state.json", lambda w: "[" * 100_000)
checkpoint_file("checkpoint_state_giant_number", "state.json", lambda w: '{"progress": {"step": ' + "9" * 5000 + "}}")
checkpoint_file(
    "checkpoint_state_optimizer", "state.json", state(optimizer={"param_groups": [{"lr": "x"}], "order": {}})
)
checkpoint_file("checkpoint_state_scheduler", "state.json", state(schedulers=[{"__init__": "x", "base_values": "x"}]))
checkpoint_file("checkpoint_state_metrics", "state.json", state(metrics=[[1, 2, 3]]))
checkpoint_file("checkpoint_state_list", "state.json", lambda w: "[]")
checkpoint_file(
    "checkpoint_optimizer_pickle", "optimizer.safetensors", lambda w: pickle.dumps(Calls(os.system, shell(w)))
)
checkpoint_file(
    "checkpoint_random_pickle", "rank_00000.safetensors", lambda w: pickle.dumps(Calls(os.system, shell(w)))
)
checkpoint_file(
    "checkpoint_adapter_pickle", "adapter_model.safetensors", lambda w: pickle.dumps(Calls(os.system, shell(w)))
)
checkpoint_file(
    "checkpoint_adapter_config", "adapter_config.json", lambda w: '{"peft_type": "LORA", "megatron_core": "x"}'
)


@artefact("checkpoint", fast=True)
def checkpoint_record_with_escapes(world: World, folder: Path) -> Path:
    target = checkpoint_copy(world, folder)
    record = json.loads((target / "medtune.json").read_text())
    record |= {"system": ESCAPES, "prompt_template": ESCAPES, "stage": ESCAPES, "method": ESCAPES}
    record["base_model"]["name_or_path"] = f"x/{ESCAPES}"
    (target / "medtune.json").write_text(json.dumps(record))
    (target / f"{ESCAPES.replace('/', '')}.txt").write_text("x")
    return seal(target)


@artefact("checkpoint")
def checkpoint_random_text(world: World, folder: Path) -> Path:
    """The random state's plain part is JSON in the file's metadata."""
    target = checkpoint_copy(world, folder)
    tensors = load_file(target / "rank_00000.safetensors")
    save_file(tensors, target / "rank_00000.safetensors", metadata={"plain": python(world)})
    return seal(target)


@artefact("checkpoint")
def checkpoint_random_sizes(world: World, folder: Path) -> Path:
    target = checkpoint_copy(world, folder)
    tensors = {name: torch.zeros(3, dtype=torch.int64) for name in load_file(target / "rank_00000.safetensors")}
    plain = {"python_gauss": None, "numpy": ["MT19937", 1, 0, 0.0]}
    save_file(tensors, target / "rank_00000.safetensors", metadata={"plain": json.dumps(plain)})
    return seal(target)


@artefact("checkpoint")
def checkpoint_optimizer_names(world: World, folder: Path) -> Path:
    target = checkpoint_copy(world, folder)
    save_file({"exp_avg.../../x": torch.ones(2), "x": torch.ones(1)}, target / "optimizer.safetensors")
    return seal(target)


def manifest(name: str, content: Callable[[World, Path], Any], fast: bool = False) -> None:
    """A checkpoint with another manifest."""

    def make(world: World, folder: Path) -> Path:
        target = checkpoint_copy(world, folder)
        (target / "manifest.json").write_text(json.dumps(content(world, target)))
        return target

    make.__name__ = name
    artefact("checkpoint", fast)(make)


def with_entry(name: str, entry: Any = None) -> Callable[[World, Path], Any]:
    return lambda world, target: {"files": {**_files(target), name: entry or {"bytes": 1, "sha256": "0"}}}


def _files(target: Path) -> dict[str, Any]:
    return json.loads((target / "manifest.json").read_text())["files"]


manifest("manifest_traversal", with_entry("../../../../../../etc/passwd"), fast=True)
manifest("manifest_absolute", with_entry("/etc/passwd"))
manifest("manifest_escapes", with_entry(ESCAPES))
manifest("manifest_nul", with_entry("a\0b"))
manifest("manifest_long_name", with_entry("a" * 5000))
manifest("manifest_entry_of_text", with_entry("config.py", "x"), fast=True)
manifest("manifest_list", lambda w, t: {"files": list(_files(t))})
manifest("manifest_of_nothing", lambda w, t: {"files": {}}, fast=True)
manifest("manifest_null", lambda w, t: None)
manifest("manifest_deep", lambda w, t: [[[]]] * 3)


@artefact("checkpoint")
def manifest_bomb(world: World, folder: Path) -> Path:
    target = checkpoint_copy(world, folder)
    (target / "manifest.json").write_text("[" * 200_000)
    return target


@artefact("checkpoint", fast=True)
def checkpoint_links_to_a_secret(world: World, folder: Path) -> Path:
    target = checkpoint_copy(world, folder)
    (target / "vocab.txt").symlink_to(world.root / SECRET)
    return seal(target)


@artefact("checkpoint")
def checkpoint_endless_file(world: World, folder: Path) -> Path:
    target = checkpoint_copy(world, folder)
    (target / "vocab.txt").symlink_to("/dev/zero")
    listed = {**_files(target), "vocab.txt": {"bytes": 0, "sha256": "0"}}
    (target / "manifest.json").write_text(json.dumps({"files": listed}))
    return target


@artefact("checkpoint")
def checkpoint_pipe(world: World, folder: Path) -> Path:
    target = checkpoint_copy(world, folder)
    (target / "state.json").unlink()
    os.mkfifo(target / "state.json")
    return target


# ---------------------------------------------------------------- work dirs


def work_dir(name: str, spoil: Callable[[World, Path, Path], None], fast: bool = False) -> None:
    """A work dir with a good checkpoint, spoilt by `spoil(world, work dir, a folder of the user's)`."""

    def make(world: World, folder: Path) -> Path:
        target = folder / "work"
        shutil.copytree(world.checkpoint, target / "iter_1.pth")
        spoil(world, target, world.canary)
        return target

    make.__name__ = name
    artefact("work_dir", fast)(make)


def link(target: Path, to: Path) -> None:
    target.symlink_to(to)


work_dir("last_checkpoint_traversal", lambda w, d, c: _write(d / "last_checkpoint", "../../../../etc\n"), fast=True)
work_dir("last_checkpoint_link", lambda w, d, c: link(d / "last_checkpoint", c / "written"))
work_dir("work_dir_lock_link", lambda w, d, c: link(d / ".lock", c / "written"), fast=True)
work_dir("work_dir_config_link", lambda w, d, c: link(d / "sft.py", c / "written"))
work_dir("work_dir_plot_link", lambda w, d, c: link(d / "loss.png", c / "written"))
work_dir("work_dir_half_written_link", lambda w, d, c: link(d / ".tmp-iter_2.pth-1", c), fast=True)
work_dir("work_dir_replaced_link", lambda w, d, c: link(d / ".old-iter_1.pth-1", c))
work_dir("work_dir_checkpoint_link", lambda w, d, c: link(d / "iter_9.pth", w.checkpoint))
work_dir("work_dir_name_escapes", lambda w, d, c: shutil.copytree(w.base, d / f"iter_7.pth{ESCAPES}"))
work_dir(
    "work_dir_broken_newest",
    lambda w, d, c: _write(_mkdir(d / "iter_8.pth") / "manifest.json", json.dumps({"files": {ESCAPES: {}}})),
)


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def _mkdir(folder: Path) -> Path:
    folder.mkdir()
    return folder

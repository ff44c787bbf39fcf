"""Hostile checkpoints of other programs, as `convert pth_to_hf` imports them: full `.pth` models and ZeRO-3 folders."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hostile import SECRET, World, artefact
from hostile_files import ESCAPES, Calls, python, shell
from safetensors.torch import load_file

MODEL_STATES = "zero_pp_rank_{}_mp_rank_00_model_states.pt"
OPTIMIZER_STATES = "bf16_zero_pp_rank_{}_mp_rank_00_optim_states.pt"
RANKS = 2


def full(name: str, change: Callable[[World, dict[str, Any]], Any], fast: bool = False) -> None:
    """A full model as XTuner saves it, of the honest base's weights; `change` may spoil or replace what is saved."""

    def make(world: World, folder: Path) -> Path:
        state = {f"llm.{key}": tensor for key, tensor in load_file(world.base / "model.safetensors").items()}
        saved = {"state_dict": OrderedDict(state), "meta": {"iter": 1}, "message_hub": {}}
        torch.save(change(world, saved) or saved, folder / "iter_1.pth")
        return folder / "iter_1.pth"

    make.__name__ = name
    artefact("old", fast)(make)


def _weight(value: Callable[[World], Any]) -> Callable[[World, dict[str, Any]], None]:
    """One of the weights is this."""
    return lambda world, saved: saved["state_dict"].update({"llm.model.norm.weight": value(world)})


full("full_pth_pickle_in_weights", _weight(lambda w: Calls(os.system, shell(w))), fast=True)
full("full_pth_pickle_beside", lambda w, s: s.update(message_hub=Calls(os.system, shell(w))))
full("full_pth_pickle_as_a_key", lambda w, s: s.update({Calls(os.getenv, "HOME"): 1}))
full("full_pth_config_text", lambda w, s: s.update(meta={"config": python(w), "cfg": python(w)}), fast=True)
full("full_pth_name_of_escapes", lambda w, s: s["state_dict"].update({f"llm.{ESCAPES}": torch.ones(2)}), fast=True)
full("full_pth_name_of_a_path", lambda w, s: s["state_dict"].update({f"llm.../../../{w.canary}/x": torch.ones(2)}))
full("full_pth_name_is_a_number", lambda w, s: s["state_dict"].update({7: torch.ones(2)}))
full("full_pth_expanded_weight", _weight(lambda w: torch.ones(1).expand(1 << 40)))
full("full_pth_sparse_weight", _weight(lambda w: torch.eye(4).to_sparse()))
full("full_pth_meta_weight", _weight(lambda w: torch.empty(1 << 40, device="meta")))
full("full_pth_complex_weight", _weight(lambda w: torch.ones(64, dtype=torch.complex64)))
full("full_pth_weight_of_text", _weight(python))
full("full_pth_a_module", lambda w, s: torch.nn.Linear(2, 2))
full("full_pth_deep", lambda w, s: s.update(meta=_nested(150)))


def _nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


# ---------------------------------------------------------------- ZeRO-3


def zero(name: str, change: Callable[[World, dict[str, Any], dict[str, Any]], None], fast: bool = False) -> None:
    """A ZeRO-3 folder of two ranks, as DeepSpeed writes it; of the last rank `change(world, model, optimizer)`."""

    def make(world: World, folder: Path) -> Path:
        target = folder / "iter_1.pth"
        target.mkdir()
        shapes = [OrderedDict([("llm.a", torch.Size([3, 5]))])]
        for rank in range(RANKS):
            model = {"module": {}, "buffer_names": [], "param_shapes": shapes, "shared_params": {}}
            states = {"zero_stage": 3, "partition_count": RANKS, "fp32_flat_groups": [torch.ones(8)]}
            optimizer = {"optimizer_state_dict": states}
            if rank == RANKS - 1:
                change(world, model, optimizer)
            torch.save(model, target / MODEL_STATES.format(rank))
            torch.save(optimizer, target / OPTIMIZER_STATES.format(rank))
        (target / "zero_to_fp32.py").write_text(python(world))
        (target / "deepspeed.py").write_text(python(world))
        return target

    make.__name__ = name
    artefact("old", fast)(make)


def _states(**changes: Any) -> Callable[[World, dict[str, Any], dict[str, Any]], None]:
    return lambda world, model, optimizer: optimizer["optimizer_state_dict"].update(changes)


zero("zero_pickle_in_the_model", lambda w, m, o: m.update(ds_config=Calls(os.system, shell(w))), fast=True)
zero("zero_pickle_in_the_optimizer", lambda w, m, o: o.update(ds_version=Calls(os.system, shell(w))))
zero("zero_pickle_in_a_group", lambda w, m, o: _states(fp32_flat_groups=[Calls(os.system, shell(w))])(w, m, o))
zero("zero_giant_shape", lambda w, m, o: m.update(param_shapes=[{"llm.a": torch.Size([1 << 40, 1 << 20])}]))
zero("zero_negative_shape", lambda w, m, o: m.update(param_shapes=[{"llm.a": (-3, -5)}]))
zero("zero_ranks_without_end", _states(partition_count=1 << 60))
zero("zero_expanded_group", _states(fp32_flat_groups=[torch.ones(1).expand(1 << 40)]))
zero("zero_groups_of_text", _states(fp32_flat_groups="__import__('os').system('id')"))
zero("zero_names_of_escapes", lambda w, m, o: m.update(shared_params={ESCAPES: "llm.a"}, buffer_names=[ESCAPES]))


@artefact("old", fast=True)
def zero_link_to_a_secret(world: World, folder: Path) -> Path:
    """A rank's file that is one of the user's."""
    target = folder / "iter_1.pth"
    target.mkdir()
    for rank in range(RANKS):
        (target / MODEL_STATES.format(rank)).symlink_to(world.root / SECRET)
        (target / OPTIMIZER_STATES.format(rank)).symlink_to(world.root / SECRET)
    return target


@artefact("old")
def zero_latest_elsewhere(world: World, folder: Path) -> Path:
    """DeepSpeed's file `latest` names the folder to read, and its JSON what to run."""
    target = folder / "iter_1.pth"
    target.mkdir()
    (target / "latest").write_text("../../../../../../etc")
    (target / "ds_config.json").write_text(json.dumps({"optimizer": {"type": "os.system"}}))
    torch.save(Calls(os.system, shell(world)), target / "mp_rank_00_model_states.pt")
    return target

"""PiSSA adapters, whose start took part of the base weights: written as plain LoRA for the base as it was, and back.

PiSSA (Meng et al. 2024, arXiv 2404.02948) begins with factors A0, B0 of the base weight W and trains A, B on what is
left, W - s B0 A0. On W itself the trained weight is W + s (B A - B0 A0): a LoRA of twice the rank, with A over A0 and B
beside -B0. That is what a checkpoint holds. Any PEFT loads and merges it, and both halves come back from it exactly.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from medtune.files import read_json, write_json

PREFIXES = ("pissa", "olora")  # initialisations that take B0 A0 out of the base weights

Factors = dict[str, torch.Tensor]


def changes_base(lora: Any) -> bool:
    """True for a PEFT config whose initialisation changes the base weights in this way."""
    return str(getattr(lora, "init_lora_weights", "")).startswith(PREFIXES)


def factors_of(llm: Any) -> Factors:
    """A and B of every module, under the names that PEFT stores them by, copied to the CPU."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(llm, save_embedding_layers=False)
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def save_plain(initial: Factors, folder: Path) -> None:
    """Rewrite the adapter that PEFT has saved in `folder` as plain LoRA of twice the rank.

    Args:
        initial: the model's factors before the first step.
        folder: of `adapter_config.json` and `adapter_model.safetensors`.
    """
    doubled: Factors = {}
    for name, value in load_file(folder / "adapter_model.safetensors").items():
        value = value.clone()  # the file is written anew
        if _is_factor(name):
            first = initial[name] if "_A" in name else -initial[name]
            value = torch.cat([value, first], dim=_rank_dim(name)).contiguous()
        doubled[name] = value
    save_file(doubled, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    file = folder / "adapter_config.json"
    config = read_json(file)
    rise = math.sqrt(2) if config.get("use_rslora") else 2  # the scale is alpha / r, or alpha / sqrt(r)
    config["r"] *= 2
    config["rank_pattern"] = {key: 2 * rank for key, rank in (config.get("rank_pattern") or {}).items()}
    config["lora_alpha"] *= rise
    config["alpha_pattern"] = {key: rise * alpha for key, alpha in (config.get("alpha_pattern") or {}).items()}
    config["init_lora_weights"] = True
    write_json(file, config)


def load_plain(llm: Any, initial: Factors, folder: Path) -> Factors:
    """Put back what `save_plain` wrote; returns the factors that the saved run began with.

    If they are not this model's own (another machine's singular values differ in the last bits), its base weights are
    moved to what those left.
    """
    from peft import set_peft_model_state_dict

    trained: Factors = {}
    begun: Factors = {}
    for name, value in load_file(folder / "adapter_model.safetensors").items():
        if _is_factor(name):
            trained[name], first = (half.contiguous() for half in value.chunk(2, dim=_rank_dim(name)))
            begun[name] = first if "_A" in name else -first
        else:
            trained[name] = begun[name] = value
    if any(not torch.equal(initial[name], value) for name, value in begun.items() if _is_factor(name)):
        for factors, sign in ((initial, 1), (begun, -1)):
            set_peft_model_state_dict(llm, factors)
            _add_product(llm, sign)
    set_peft_model_state_dict(llm, trained)
    return begun


def _is_factor(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def _rank_dim(name: str) -> int:
    """A is (r, in), B is (out, r)."""
    return 0 if ".lora_A." in name else 1


def _add_product(llm: Any, sign: int) -> None:
    """Add s B A to each adapted base weight, or take it away."""
    from peft.tuners.lora import LoraLayer

    for module in llm.modules():
        if isinstance(module, LoraLayer):
            layer: Any = module
            weight = layer.get_base_layer().weight
            weight.data += sign * layer.get_delta_weight("default").to(weight.dtype)

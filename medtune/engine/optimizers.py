"""Optimizers by name or callable, over parameter groups with rates and decay of their own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch

from medtune.build import checked_by
from medtune.engine.muon import MuonWithAdamW
from medtune.errors import ConfigError, EnvironmentFault, nearest

Named = tuple[str, torch.nn.Parameter]

OptimName = Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "adafactor", "muon", "sgd"]


def _precheck_optimizer(**arguments: Any) -> None:
    """Try the arguments on one small parameter; which names `custom_keys` fit is known only with the model."""
    paramwise = {k: v for k, v in (arguments.pop("paramwise_cfg", None) or {}).items() if k != "custom_keys"}
    make_optimizer([("tried", torch.nn.Parameter(torch.zeros(2, 2)))], paramwise_cfg=paramwise, **arguments)


@checked_by(_precheck_optimizer)
def make_optimizer(
    params: Iterable[Named],
    optim_type: str | Callable[..., torch.optim.Optimizer] = "adamw",
    lr: float = 2e-4,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
    paramwise_cfg: Mapping[str, Any] | None = None,
    lora_plus_ratio: float | None = None,
    **extra: Any,
) -> torch.optim.Optimizer:
    """Build an optimizer over named parameters.

    Args:
        params: (name, parameter) pairs of what is trained.
        optim_type: an `OptimName`, or any class with torch's signature. "adamw" is torch's, fused; the 8-bit and paged
            ones are bitsandbytes' (paged states move to the CPU when the GPU is full; they need one); "adafactor" and
            "muon" are torch's, Muon for matrices, with AdamW for everything else.
        lr: peak learning rate.
        betas: of the Adam family; Muon's momentum is the first.
        weight_decay: decoupled, times the rate.
        paramwise_cfg: mmengine's: `custom_keys={"lora_A": dict(lr_mult=0.5, decay_mult=0)}` by a part of the name (the
            longest that fits), `bias_lr_mult`, `bias_decay_mult`, `norm_decay_mult` by kind.
        lora_plus_ratio: rate of every `lora_B` over that of `lora_A` (LoRA+: Hayou et al. 2024, arXiv 2402.12354).
        extra: handed to the optimizer.

    Raises:
        ConfigError: an unknown name, an argument that the optimizer refuses, or a key that fits no parameter.
        EnvironmentFault: a bitsandbytes optimizer that cannot run here.
    """
    groups = parameter_groups(list(params), lr, weight_decay, paramwise_cfg, lora_plus_ratio)
    try:
        if callable(optim_type):
            if "betas" in inspect.signature(optim_type).parameters:
                extra = {"betas": betas, **extra}
            return optim_type(groups, lr=lr, weight_decay=weight_decay, **extra)
        if optim_type not in OPTIMIZERS:
            near = nearest(str(optim_type).lower(), OPTIMIZERS)
            raise ConfigError(f"optim_type {optim_type!r} is none of {', '.join(OPTIMIZERS)}.{near}")
        return OPTIMIZERS[optim_type](groups, lr=lr, betas=betas, weight_decay=weight_decay, **extra)
    except (TypeError, ValueError) as fault:
        raise ConfigError(f"the optimizer {optim_type!r} refuses its arguments: {fault}") from None


def parameter_groups(
    params: list[Named],
    lr: float,
    weight_decay: float,
    paramwise_cfg: Mapping[str, Any] | None = None,
    lora_plus_ratio: float | None = None,
) -> list[dict[str, Any]]:
    """Group parameters by learning rate and weight decay, in the model's order; one group where all are alike."""
    settings = dict(paramwise_cfg or {})
    keys: dict[str, Mapping[str, float]] = settings.get("custom_keys") or {}
    unknown = set(settings) - {"custom_keys", "bias_lr_mult", "bias_decay_mult", "norm_decay_mult"}
    if unknown:
        raise ConfigError(f"paramwise_cfg has no {sorted(unknown)[0]!r}.{nearest(sorted(unknown)[0], PARAMWISE)}")
    unused = [key for key in keys if not any(key in name for name, _ in params)]
    if unused:
        raise ConfigError(f"paramwise_cfg.custom_keys: {unused[0]!r} is part of no trained parameter's name.")
    groups: dict[tuple[float, float], list[Named]] = {}
    for name, parameter in params:
        lr_mult, decay_mult = _multipliers(name, parameter, settings, keys)
        if lora_plus_ratio and ".lora_B." in name:
            lr_mult *= lora_plus_ratio
        groups.setdefault((lr * lr_mult, weight_decay * decay_mult), []).append((name, parameter))
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


PARAMWISE = ("custom_keys", "bias_lr_mult", "bias_decay_mult", "norm_decay_mult")


def _multipliers(
    name: str, parameter: torch.nn.Parameter, settings: Mapping[str, Any], keys: Mapping[str, Mapping[str, float]]
) -> tuple[float, float]:
    """Factors on rate and decay of one parameter; a key in its name decides over its kind."""
    fitting = sorted((key for key in keys if key in name), key=lambda key: (-len(key), key))
    if fitting:
        chosen = keys[fitting[0]]
        return float(chosen.get("lr_mult", 1.0)), float(chosen.get("decay_mult", 1.0))
    if name.endswith(".bias"):
        return float(settings.get("bias_lr_mult", 1.0)), float(settings.get("bias_decay_mult", 1.0))
    if parameter.ndim < 2:
        return 1.0, float(settings.get("norm_decay_mult", 1.0))
    return 1.0, 1.0


def _adamw(groups: list[dict[str, Any]], **settings: Any) -> torch.optim.Optimizer:
    settings.setdefault("fused", True)
    return torch.optim.AdamW(groups, **settings)


def _sgd(groups: list[dict[str, Any]], betas: tuple[float, float], **settings: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, momentum=betas[0], **settings)


def _adafactor(groups: list[dict[str, Any]], betas: tuple[float, float], **settings: Any) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(groups, **settings)


def _bitsandbytes(class_name: str) -> Callable[..., torch.optim.Optimizer]:
    def build(groups: list[dict[str, Any]], **settings: Any) -> torch.optim.Optimizer:
        from bitsandbytes import optim

        on_gpu = all(p.is_cuda for group in groups for _, p in group["params"])
        if class_name.startswith("Paged") and not on_gpu:
            raise EnvironmentFault(f"{class_name} pages its states out of a GPU; here is none. Use optim_type='adamw'.")
        return getattr(optim, class_name)(groups, **settings)

    return build


def _muon(groups: list[dict[str, Any]], **settings: Any) -> torch.optim.Optimizer:
    matrices: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    for group in groups:
        for kind, chosen in ((matrices, True), (rest, False)):
            members = [named for named in group["params"] if _is_matrix(*named) is chosen]
            if members:
                kind.append({**group, "params": members})
    return MuonWithAdamW(matrices, rest, **settings)


def _is_matrix(name: str, parameter: torch.nn.Parameter) -> bool:
    """True for what Muon takes: a hidden layer's matrix, neither an embedding nor the head."""
    return parameter.ndim == 2 and "embed" not in name and "lm_head" not in name


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adamw_8bit": _bitsandbytes("AdamW8bit"),
    "paged_adamw_8bit": _bitsandbytes("PagedAdamW8bit"),
    "paged_adamw_32bit": _bitsandbytes("PagedAdamW32bit"),
    "adafactor": _adafactor,
    "muon": _muon,
    "sgd": _sgd,
}

"""Put a LoRA adapter on a model: its variants, its targets, and what cannot go together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from medtune.compat import quiet_peft
from medtune.errors import ConfigError, nearest
from medtune.models.load import module_names

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel

Method = Literal["full", "lora", "qlora"]
LoraVariant = Literal["rslora", "dora", "pissa"]
VARIANTS: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True},  # alpha / sqrt(r): Kalajdzievski 2023, arXiv 2312.03732
    "dora": {"use_dora": True},  # magnitude and direction: Liu et al. 2024, arXiv 2402.09353
    "pissa": {"init_lora_weights": "pissa_niter_16"},  # principal components: Meng et al. 2024, arXiv 2404.02948
}


def precheck_lora(
    llm: Any = None, lora: Any = None, method: str | None = None, lora_variant: str | None = None, **_: Any
) -> None:
    """Raise for a LoRA config that could never be trained: its method, its variant, its targets.

    Raises:
        ConfigError: lists all that is wrong, "; " between.
    """
    faults = [*_misfits(llm, lora, method, lora_variant), *_unknown_targets(llm, lora)]
    if faults:
        raise ConfigError("; ".join(faults))


def _misfits(llm: Any, lora: Any, method: str | None, variant: str | None) -> list[str]:
    faults = []
    if method == "full" and lora is not None:
        faults.append("method 'full' trains the whole model: set lora=None")
    if method in ("lora", "qlora") and lora is None:
        faults.append(f"method {method!r} needs lora")
    quantised = isinstance(llm, dict) and llm.get("bits") is not None
    if variant is not None and lora is None:
        faults.append(f"lora_variant={variant!r} needs method 'lora' or 'qlora'; 'full' has no adapter")
    elif variant == "pissa" and quantised:
        faults.append("lora_variant='pissa' changes the base weights, which qlora keeps quantised; use method 'lora'")
    return faults


def _unknown_targets(llm: Any, lora: Any) -> list[str]:
    """Each listed target must be a module of the model, as far as that is on this machine."""
    targets = lora.get("target_modules") if isinstance(lora, dict) else None
    name = llm.get("pretrained_model_name_or_path") if isinstance(llm, dict) else None
    if name is None or not isinstance(targets, (list, tuple, set)):
        return []
    modules = module_names(name) or []
    known = dict.fromkeys(module.rpartition(".")[2] for module in modules)
    return [
        f"lora.target_modules: the model has no module {target!r}.{nearest(str(target), known)}"
        for target in (targets if modules else ())
        if not any(module == target or module.endswith(f".{target}") for module in modules)
    ]


def with_adapter(llm: PreTrainedModel, lora: PeftConfig, variant: LoraVariant | None = None) -> nn.Module:
    """The model with a new adapter, in fp32, on frozen weights.

    Raises:
        ConfigError: PEFT refuses the config, or it would train a quantised weight.
    """
    from peft import get_peft_model

    for name, value in VARIANTS.get(variant or "", {}).items():
        setattr(lora, name, value)
    try:
        with quiet_peft():
            model = get_peft_model(llm, lora)
    except ValueError as fault:
        raise ConfigError(f"model.lora: {' '.join(str(fault).split())[:300]}") from None
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.float()
        elif parameter.requires_grad:
            raise ConfigError(f"model.lora: {name} is quantised and cannot be trained.")
    return model

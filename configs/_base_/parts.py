"""Pieces that the base configs share: plain functions that return the dicts of a config."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from mmengine.visualization import LocalVisBackend, TensorboardVisBackend
from peft import LoraConfig

from medtune.data.readers import read_data
from medtune.engine.hooks import (
    DatasetInfoHook,
    EvaluateChatHook,
    LossPlotHook,
    ProgressBarHook,
)
from medtune.errors import ConfigError, nearest
from medtune.models.load import load_llm

METHODS = ("full", "lora", "qlora")
LORA_VARIANTS: dict[str | None, dict[str, Any]] = {
    "rslora": dict(use_rslora=True),  # alpha / sqrt(r): Kalajdzievski 2023, arXiv 2312.03732
    "dora": dict(use_dora=True),  # magnitude and direction: Liu et al. 2024, arXiv 2402.09353
    "pissa": dict(init_lora_weights="pissa_niter_16"),  # principal components: Meng et al. 2024, arXiv 2404.02948
}


def base_llm(
    name: str,
    method: str,
    quantization_bits: int,
    torch_dtype: str,
    device: str,
    trust_remote_code: bool,
    revision: str | None,
) -> dict[str, Any]:
    """The language model: quantised under qlora, in fp32 under full, where all of it is trained."""
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is none of {', '.join(METHODS)}.{nearest(method, METHODS)}")
    return dict(
        type=load_llm,
        pretrained_model_name_or_path=name,
        torch_dtype="fp32" if method == "full" else torch_dtype,
        bits=quantization_bits if method == "qlora" else None,
        device=device,
        trust_remote_code=trust_remote_code,
        revision=revision,
    )


def adapter(
    method: str,
    r: int,
    lora_alpha: int,
    lora_dropout: float,
    target_modules: str | list[str],
    variant: str | None = None,
) -> dict[str, Any] | None:
    """The LoRA adapter, or None for a full fine-tune. On the command line, target modules are a text with commas."""
    if variant is not None and variant not in LORA_VARIANTS:
        raise ConfigError(
            f"lora_variant {variant!r} is none of {', '.join(LORA_VARIANTS)}.{nearest(variant, LORA_VARIANTS)}"
        )
    if variant == "pissa" and method == "qlora":
        raise ConfigError("lora_variant='pissa' changes the base weights, which qlora keeps quantised. Use 'lora'.")
    if variant is not None and method == "full":
        raise ConfigError(f"lora_variant={variant!r} needs method 'lora' or 'qlora'; there is no adapter under 'full'.")
    if method == "full":
        return None
    if r < 1:
        raise ConfigError(f"lora_r: wanted 1 or more, got {r!r}")
    if isinstance(target_modules, str) and "," in target_modules:
        target_modules = [name.strip("[( '\")]") for name in target_modules.split(",")]
    return dict(
        type=LoraConfig,
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        bias="none",
        target_modules=target_modules,
        task_type="CAUSAL_LM",
        **LORA_VARIANTS.get(variant, {}),
    )


def validation_data(
    train_dataset: dict[str, Any], data_path: str | None, max_dataset_length: int | None, needed_by: Any = None
) -> dict[str, Any]:
    """Validation data, read and encoded as the training data: a file of its own, or the part split off by `val_ratio`.

    With neither, building it gives None, unless a setting needs it.
    """
    if needed_by and data_path is None and not train_dataset.get("val_ratio"):
        raise ConfigError("save_best and early_stopping_patience need validation data: val_ratio or val_data_path.")
    source = train_dataset.get("dataset")
    changes: dict[str, Any] = {"part": "val", "max_dataset_length": max_dataset_length}
    if data_path is None:
        changes["dataset"] = dict(source) if isinstance(source, dict) else source
    elif train_dataset.get("val_ratio"):
        raise ConfigError("val_ratio and val_data_path both name validation data; set one of them.")
    else:
        as_training = isinstance(source, dict) and source.get("type") is read_data
        changes["dataset"] = dict(source if as_training else {"type": read_data}, data_path=data_path)
        changes["part"] = "all"
    return dict(train_dataset, **changes)


def chat_hooks(
    tokenizer: dict[str, Any],
    evaluation_inputs: Sequence[str],
    evaluation_freq: int | None,
    system: str,
    prompt_template: Any,
    max_new_tokens: int,
) -> list[dict[str, Any]]:
    """Dataset report, progress bar, loss plot, and the model's answers to `evaluation_inputs`."""
    return [
        dict(type=DatasetInfoHook),
        dict(type=ProgressBarHook),
        dict(type=LossPlotHook),
        dict(
            type=EvaluateChatHook,
            tokenizer=tokenizer,
            evaluation_inputs=evaluation_inputs,
            every_n_iters=evaluation_freq,
            system=system,
            prompt_template=prompt_template,
            max_new_tokens=max_new_tokens,
        ),
    ]


def scalars(tensorboard: bool) -> dict[str, Any]:
    """Where scalars go: JSON lines always, TensorBoard events on request."""
    if tensorboard and find_spec("tensorboard") is None:
        raise ConfigError("tensorboard=True: the package is not installed. Run: pip install tensorboard")
    backends = [dict(type=LocalVisBackend)]
    return dict(vis_backends=[*backends, dict(type=TensorboardVisBackend)] if tensorboard else backends)

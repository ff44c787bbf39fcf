"""Pieces that the base configs share: plain functions that return the dicts of a config."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from mmengine.visualization import LocalVisBackend, TensorboardVisBackend
from peft import LoraConfig

from medtune.engine.hooks import (
    CheckpointHook,
    DatasetInfoHook,
    EvaluateChatHook,
    LoggerHook,
    LossPlotHook,
    ProgressBarHook,
)
from medtune.errors import ConfigError, nearest
from medtune.models.load import load_llm

METHODS = ("full", "lora", "qlora")


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
    method: str, r: int, lora_alpha: int, lora_dropout: float, target_modules: str | list[str]
) -> dict[str, Any] | None:
    """The LoRA adapter, or None for a full fine-tune. On the command line, target modules are a text with commas."""
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
    )


def saving_and_logging(
    save_steps: int | None, save_total_limit: int | None, logging_interval: int
) -> dict[str, dict[str, Any]]:
    """The two hooks that every run has."""
    return dict(
        logger=dict(type=LoggerHook, interval=logging_interval),
        checkpoint=dict(type=CheckpointHook, save_steps=save_steps, save_total_limit=save_total_limit),
    )


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

"""LLaMA-Factory's YAML files, and the command line of its older self, CareLlama's `src/train_bash.py`.

What is not given has the defaults of LLaMA-Factory and of transformers' trainer, not those of medtune.
"""

from __future__ import annotations

from typing import Any

from medtune.errors import ConfigError
from medtune.migrate.flags import Flags, translate
from medtune.migrate.outcome import Outcome
from medtune.migrate.trainer import DIRECT, SILENT, TOLD, adapter, common

STAGES = {
    "pt": "pt",
    "sft": "sft",
    "rm": "rm",
    "dpo": "dpo",
    "kto": "kto",
    "orpo": "orpo",
    "simpo": "simpo",
    "ppo": "ppo",
}
TEMPLATES = {
    "llama2": "llama2_chat",
    "llama2_zh": "llama2_chat",
    "llama3": "llama3_chat",
    "qwen": "qwen_chat",
    "qwen3": "qwen3",
    "qwen3_nothink": "qwen3",
    "chatml": "chatml",
    "intern": "internlm_chat",
    "intern2": "internlm2_chat",
    "zephyr": "zephyr",
    "vicuna": "vicuna",
    "chatglm2": "chatglm2",
    "chatglm3": "chatglm3",
    "baichuan": "baichuan_chat",
    "baichuan2": "baichuan2_chat",
    "mistral": "mistral",
    "gemma": "gemma",
    "phi": "phi3_chat",
    "cohere": "cohere_chat",
    "empty": "plain",
}
ALPACA = {"SYSTEM": "{system}\n\n", "INSTRUCTION": "### Instruction:\n{input}\n\n### Response:\n", "SEP": "\n\n"}
NAMES = {
    **DIRECT,
    "cutoff_len": "max_length",
    "dataset_dir": "dataset_info",
    "max_samples": "max_train_samples",
    "overwrite_cache": "overwrite_cache",
    "val_size": "val_ratio",
    "eval_dataset": "val_data_path",
    "loraplus_lr_ratio": "lora_plus_ratio",
    "default_system": "SYSTEM",
    "pref_beta": "loss_beta",
    "dpo_beta": "loss_beta",
    "pref_loss": "dpo_loss_type",
    "dpo_loss": "dpo_loss_type",
    "dpo_label_smoothing": "label_smoothing",
    "kto_beta": "loss_beta",
}
NOT_HERE = {
    **TOLD,
    "adapter_name_or_path": "merge that adapter first (`medtune convert merge`) and name the merged model",
    "checkpoint_dir": "merge that adapter first (`medtune convert merge`) and name the merged model",
    "ref_model": "the reference is the model as it was before the first step",
    "reward_model": "no equivalent",
    "interleave_probs": "give each source of data_path a weight",
    "streaming": "data larger than memory is encoded to disk and mapped",
    "tokenized_path": "encoded rows are kept by content; see data_cache",
    "rope_scaling": "positions are those of the model's config.json",
    "additional_target": 'say "model.lora.modules_to_save=[...]" on the command line',
    "num_layer_trainable": "no equivalent",
    "freeze_trainable_layers": "no equivalent",
    "use_unsloth": "no equivalent",
    "use_galore": "no equivalent",
    "use_badam": "no equivalent",
    "shift_attn": "no equivalent",
    "enable_liger_kernel": "no equivalent",
    "pref_ftx": "no equivalent",
    "efficient_eos": "no equivalent",
    "predict_with_generate": "`medtune chat`, or `medtune test` for loss and accuracy",
    "do_predict": "`medtune chat`, or `medtune test` for loss and accuracy",
    "max_source_length": "max_length bounds question and answer together",
    "max_target_length": "max_length bounds question and answer together",
    "resize_vocab": "no equivalent",
    "new_special_tokens": "no equivalent",
    "enable_thinking": "the tokenizer's chat template says how thoughts are written",
    "image_max_pixels": "medtune trains on text alone",
    "video_max_pixels": "medtune trains on text alone",
}


def migrate(flags: Flags) -> Outcome:
    """Turn LLaMA-Factory's flags into settings.

    Raises:
        ConfigError: a stage or a way of fine-tuning that is unknown.
    """
    out = Outcome("LLaMA-Factory")
    stage = flags.take("stage", default="sft")
    if stage not in STAGES:
        raise ConfigError(f"{flags.where}: stage {stage!r} is none of {', '.join(STAGES)}.")
    out.stage = STAGES[stage]
    if stage == "dpo" and (loss := flags.left.get("pref_loss")) in ("orpo", "simpo"):
        out.stage = str(loss)
        del flags.left["pref_loss"]
    kind = flags.take("finetuning_type", default="lora")
    if kind not in ("full", "lora"):
        raise ConfigError(f"{flags.where}: finetuning_type {kind!r}: wanted full or lora.")
    bits = flags.take("quantization_bit")
    method = "full" if kind == "full" else "qlora" if bits else "lora"
    if kind == "full" and bits:
        raise ConfigError(
            f"{flags.where}: quantization_bit goes with finetuning_type lora; quantized weights are frozen."
        )
    adapter(flags, out, method, rank=8, alpha=None, dropout=0.0, targets="all")
    if bits:
        _bits(bits, flags, out)
    _data(flags, out)
    common(flags, out, lr=5e-5, epochs=3.0, batch_size=8, save_steps=500, logging_steps=500)
    translate(flags, out, NAMES, NOT_HERE, SILENT)
    return out


def _bits(bits: Any, flags: Flags, out: Outcome) -> None:
    if bits not in (4, 8):
        raise ConfigError(f"{flags.where}: quantization_bit {bits!r}: wanted 4 or 8.")
    out.put("quantization_bits", bits, f"--quantization_bit {bits} -> method qlora")
    for flag, usual in (("quantization_method", ("bitsandbytes", "bnb")), ("quantization_type", ("nf4",))):
        if (value := flags.take(flag, default=usual[0])) not in usual:
            out.miss(f"--{flag} {value}: bitsandbytes' NF4 is what there is")
    if flags.take("double_quantization", default=True) is False:
        out.miss("--double_quantization False: 4 bits are double quantized here")


def _data(flags: Flags, out: Outcome) -> None:
    """Names of a dataset_info.json, their format, and how rows are packed and trained."""
    named = flags.take("dataset")
    if named is not None:
        names = [name.strip() for name in named.split(",")] if isinstance(named, str) else named
        path = names[0] if isinstance(names, list) and len(names) == 1 else names
        out.put("data_path", path, "--dataset -> data_path: names of a dataset_info.json, which is read as it is")
    template = flags.take("template")
    if template == "alpaca":
        out.put("prompt_template", ALPACA, "--template alpaca -> prompt_template, written out")
    elif template in TEMPLATES:
        ours = TEMPLATES[template]
        out.put(
            "prompt_template", ours, f"--template {template} -> prompt_template {ours}; None is the tokenizer's own"
        )
    elif template is not None:
        out.mapped.append(f"--template {template} -> prompt_template None: the tokenizer's own chat template")
    packing = flags.take("neat_packing", default=False) or flags.take("packing", default=out.stage == "pt")
    flags.take("packing")
    out.put("pack_to_max_length", bool(packing))
    out.put(
        "overflow", "truncate", "rows above cutoff_len were cut -> overflow truncate, each counted; or drop, or split"
    )
    out.put("max_length", flags.take("cutoff_len", default=2048), "--cutoff_len -> max_length")
    history, prompts = flags.take("mask_history"), flags.take("train_on_prompt")
    if history or prompts:
        out.put("train_on", "last" if history else "all", "--mask_history, --train_on_prompt -> train_on")
    order = flags.take("mix_strategy", default="concat")
    if order != "concat":
        out.put("mix", "interleave", f"--mix_strategy {order} -> mix interleave")
    size = flags.left.get("val_size")
    if isinstance(size, (int, float)) and size >= 1:
        out.miss(f"--val_size {flags.take('val_size')}: val_ratio is a share of the rows; max_eval_samples caps them")

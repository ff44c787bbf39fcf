"""MedicalGPT's scripts: run_pt.sh, run_sft.sh, run_rm.sh, run_dpo.sh, and the torchrun commands of its README.

What is not given has the defaults of its scripts and of transformers' trainer, not those of medtune.
"""

from __future__ import annotations

import re
from typing import Any

from medtune.errors import ConfigError
from medtune.migrate.flags import Flags, translate
from medtune.migrate.outcome import Outcome
from medtune.migrate.trainer import DIRECT, SILENT, TOLD, adapter, common

STAGES = {
    r"(run_)?pretraining": "pt",
    r"(run_)?supervised_finetuning(_accelerate)?": "sft",
    r"(run_)?reward_modeling": "rm",
    r"(run_)?dpo_training": "dpo",
    r"(run_)?orpo_training": "orpo",
    r"(run_)?grpo_training": "grpo",
    r"(run_)?(rl|ppo)_training(_backup)?": "ppo",
}
TEMPLATES = {
    "vicuna": "vicuna",
    "qwen": "qwen_chat",
    "llama2": "llama2_chat",
    "llama3": "llama3_chat",
    "chatglm2": "chatglm2",
    "chatglm3": "chatglm3",
    "baichuan": "baichuan_chat",
    "baichuan2": "baichuan2_chat",
    "zephyr": "zephyr",
    "mistral": "mistral",
    "chatml": "chatml",
}
NAMES = {
    **DIRECT,
    "max_train_samples": "max_train_samples",
    "max_eval_samples": "max_eval_samples",
    "validation_file_dir": "val_data_path",
    "overwrite_cache": "overwrite_cache",
    "packing": "pack_to_max_length",
    "neft_alpha": "neftune_noise_alpha",
    "beta": "loss_beta",
}
NOT_HERE = {
    **TOLD,
    "max_prompt_length": "max_length bounds question and answer together",
    "max_target_length": "max_length bounds question and answer together",
    "max_source_length": "max_length bounds question and answer together",
    "keep_linebreaks": "documents are kept as they are",
    "peft_path": "merge that adapter first (`medtune convert merge`) and name the merged model",
    "reward_model_name_or_path": "no equivalent",
    "target_kl": "no equivalent",
    "early_stopping": "no equivalent",
    "reward_baseline": "no equivalent",
    "mini_batch_size": "no equivalent",
    "output_max_length": "no equivalent",
    "modules_to_save": 'say "model.lora.modules_to_save=[...]" on the command line',
    "shift_attn": "no equivalent",
    "rope_scaling": "positions are those of the model's config.json",
}
OF_ITS_OWN = ("model_type", "tool_format", "remove_unused_columns", "dataloader_drop_last", "use_cpu")


def stage_of(script: str) -> str | None:
    """The stage that a script of MedicalGPT trains, told from its name."""
    stem = script.rsplit("/", 1)[-1].removesuffix(".py")
    return next((stage for name, stage in STAGES.items() if re.fullmatch(name, stem)), None)


def migrate(flags: Flags) -> Outcome:
    """Turn MedicalGPT's flags into settings.

    Raises:
        ConfigError: a script that is none of its training scripts, or quantized weights without an adapter.
    """
    stage = stage_of(flags.script)
    if stage is None:
        raise ConfigError(f"{flags.where}: {flags.script or 'no script'}: wanted a training script of MedicalGPT.")
    out = Outcome("MedicalGPT", stage)
    bits = 8 if flags.take("load_in_8bit") else 4 if flags.take("load_in_4bit") else None
    bits = 4 if flags.take("qlora") and bits is None else bits
    peft = flags.take("use_peft", default=True) is not False
    if bits and not peft:
        raise ConfigError(f"{flags.where}: load_in_{bits}bit goes with use_peft True; quantized weights are frozen.")
    adapter(
        flags, out, "full" if not peft else "qlora" if bits else "lora", rank=8, alpha=32, dropout=0.05, targets="all"
    )
    if bits:
        out.put("quantization_bits", bits, f"--load_in_{bits}bit -> method qlora")
    _data(flags, out)
    common(flags, out, lr=5e-5, epochs=3.0, batch_size=8, save_steps=500, logging_steps=500)
    translate(flags, out, NAMES, NOT_HERE, (*SILENT, *OF_ITS_OWN))
    return out


def _data(flags: Flags, out: Outcome) -> None:
    folder, name, subset = flags.take("train_file_dir"), flags.take("dataset_name"), flags.take("dataset_config_name")
    path: Any = name if folder is None else folder
    if path is not None and subset is not None:
        path = [{"path": path, "subset": subset}]
    if path is not None:
        out.put("data_path", path, "--train_file_dir, --dataset_name, --dataset_config_name -> data_path")
    share = flags.number("validation_split_percentage", default=1 if "validation_file_dir" not in flags.left else 0)
    if share and "validation_file_dir" not in flags.left:
        ratio = share / 100 if isinstance(share, int) else share
        told = f"--validation_split_percentage {share} -> val_ratio {ratio:g}: a share of the rows, by question"
        out.put("val_ratio", ratio, told)
    template = flags.take("template_name")
    if template in TEMPLATES:
        out.put("prompt_template", TEMPLATES[template], f"--template_name {template} -> prompt_template")
    elif template is not None:
        out.mapped.append(f"--template_name {template} -> prompt_template None: the tokenizer's own chat template")
    if out.stage == "pt":
        out.put("block_size", flags.take("block_size", default=1024))
        flags.take("group_by_length")
        return
    source, answer = flags.number("max_source_length"), flags.number("max_target_length")
    length = flags.take("model_max_length", "max_length")
    if length is None:
        length = (source or 256) + (answer or 256)
    out.put("max_length", length, "--model_max_length, or --max_source_length and --max_target_length -> max_length")
    out.put("overflow", "truncate", "longer rows were cut -> overflow truncate, each counted; or drop, or split")
    out.put("pack_to_max_length", bool(flags.take("packing", default=False)))

"""What LLaMA-Factory and MedicalGPT share: the flags of transformers' trainer and of an adapter, and their defaults."""

from __future__ import annotations

from medtune.migrate.flags import Flags
from medtune.migrate.outcome import Outcome

OPTIMIZERS = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "adamw_8bit": "adamw_8bit",
    "adamw_bnb_8bit": "adamw_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "paged_adamw_32bit": "paged_adamw_32bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
    "muon": "muon",
}
SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant",
    "constant_with_warmup": "constant",
    "warmup_stable_decay": "wsd",
}
# Flags whose value is that of a setting as it stands.
DIRECT = {
    "model_name_or_path": "pretrained_model_name_or_path",
    "tokenizer_name_or_path": "tokenizer_name_or_path",
    "tokenzier_name_or_path": "tokenizer_name_or_path",  # MedicalGPT's spelling in places
    "model_revision": "model_revision",
    "neftune_noise_alpha": "neftune_noise_alpha",
    "per_device_eval_batch_size": "eval_batch_size",
    "preprocessing_num_workers": "num_proc",
    "dataloader_num_workers": "dataloader_num_workers",
    "group_by_length": "group_by_length",
    "warmup_steps": "warmup_steps",
    "save_total_limit": "save_total_limit",
    "logging_first_step": "logging_first_step",
    "output_dir": "work_dir",
    "seed": "seed",
}
# What the command line, or nothing, stands for here.
TOLD = {
    "trust_remote_code": "refused and left off: models are loaded into transformers' own classes. For one that has "
    "none there, read its code, and set trust_remote_code = True and model_revision = the commit you read",
    "resume_from_checkpoint": "`medtune train CONFIG --resume auto`, from checkpoints of medtune",
    "deepspeed": "ranks train by data parallel: `NPROC_PER_NODE=8 medtune train CONFIG`",
    "fsdp": "ranks train by data parallel: `NPROC_PER_NODE=8 medtune train CONFIG`",
    "adam_epsilon": "say optim_wrapper.optimizer.eps=... on the command line",
    "save_only_model": "a checkpoint holds what --resume needs",
    "push_to_hub": "upload the folder of `medtune convert pth_to_hf` yourself",
    "hub_model_id": "upload the folder of `medtune convert pth_to_hf` yourself",
    "use_fast_tokenizer": "not needed",
    "max_grad_norm_type": "not needed",
}
SILENT = (  # noqa: SIM905
    "do_train do_eval plot_loss overwrite_output_dir ddp_timeout ddp_find_unused_parameters device_map "
    "save_safetensors cache_dir flash_attn ignore_pad_token_for_loss upcast_layernorm "
    "include_num_input_tokens_seen run_name logging_strategy logging_dir local_rank torch_compile tf32 "
    "upcast_lmhead_output low_cpu_mem_usage print_param_status disable_shuffling data_seed greater_is_better do_sample"
).split()


def adapter(
    flags: Flags, out: Outcome, method: str, rank: int, alpha: int | None, dropout: float, targets: str
) -> None:
    """Set the method and the adapter; alpha None is twice the rank."""
    out.put("method", method, f"--finetuning_type, --use_peft, --quantization_bit -> method {method}")
    rank = flags.number("lora_rank", default=rank)
    alpha = flags.number("lora_alpha", default=2 * rank if alpha is None else alpha)
    dropout = flags.number("lora_dropout", default=dropout)
    named = flags.take("lora_target", "target_modules", "lora_target_modules", default=targets)
    if isinstance(named, str) and named not in ("all", "all-linear"):
        named = [name.strip() for name in named.split(",")]
    variant = next((v for f, v in VARIANTS.items() if flags.take(f)), None)
    if method == "full":
        return
    out.put("lora_r", rank, "--lora_rank -> lora_r")
    out.put("lora_alpha", alpha)
    out.put("lora_dropout", dropout)
    out.put("lora_target_modules", "all-linear" if named in ("all", "all-linear") else named)
    if variant:
        out.put("lora_variant", variant, f"lora_variant {variant}")


VARIANTS = {"use_rslora": "rslora", "use_dora": "dora", "pissa_init": "pissa"}


def common(
    flags: Flags, out: Outcome, lr: float, epochs: float, batch_size: int, save_steps: int, logging_steps: int
) -> None:
    """Set what the trainer's flags say, or their defaults where they are not given."""
    out.put("lr", flags.take("learning_rate", default=lr), "--learning_rate -> lr")
    out.put("max_epochs", flags.take("num_train_epochs", default=epochs), "--num_train_epochs -> max_epochs")
    if (steps := flags.take("max_steps", default=-1)) not in (-1, None):
        out.put("max_steps", steps)
    batch = flags.take("per_device_train_batch_size", "per_gpu_train_batch_size", default=batch_size)
    out.put("batch_size", batch, "--per_device_train_batch_size -> batch_size")
    counts = flags.take("gradient_accumulation_steps", default=1)
    out.put("accumulative_counts", counts, "--gradient_accumulation_steps -> accumulative_counts")
    out.put("weight_decay", flags.take("weight_decay", default=0))
    out.put("betas", (flags.take("adam_beta1", default=0.9), flags.take("adam_beta2", default=0.999)))
    out.put("max_norm", flags.take("max_grad_norm", default=1))
    ratio = flags.take("warmup_ratio", default=0.0)
    if flags.left.get("warmup_steps") in (0, None):
        flags.take("warmup_steps")
    out.put("warmup_ratio", ratio)
    _choices(flags, out)
    _precision(flags, out)
    _intervals(flags, out, save_steps, logging_steps)


def _choices(flags: Flags, out: Outcome) -> None:
    """The optimizer and the schedule, by name."""
    schedule = flags.take("lr_scheduler_type", "lr_scheduler", default="linear")
    if schedule in SCHEDULES:
        out.put("lr_schedule", SCHEDULES[schedule], "--lr_scheduler_type -> lr_schedule")
    else:
        out.miss(f"--lr_scheduler_type {schedule}: lr_schedule stays cosine; it may be a function of the step")
    flags.take("lr_scheduler_kwargs")
    optimizer = flags.take("optim", default="adamw_torch")
    if optimizer in OPTIMIZERS:
        out.put("optim_type", OPTIMIZERS[optimizer], "")
    else:
        out.miss(f"--optim {optimizer}: optim_type stays adamw; it may be any class with torch's signature")


def _precision(flags: Flags, out: Outcome) -> None:
    named = flags.take("torch_dtype", "compute_dtype", "infer_dtype")
    given = {"bf16": flags.take("bf16"), "pure_bf16": flags.take("pure_bf16"), "fp16": flags.take("fp16")}
    if given["bf16"] or given["pure_bf16"]:
        out.put("torch_dtype", "bf16", "--bf16 -> torch_dtype bf16")
    elif given["fp16"] or named == "float16":
        out.mapped.append("--fp16 -> torch_dtype auto: bf16 where the GPU has it, else fp16")
    elif named == "bfloat16":
        out.put("torch_dtype", "bf16", "--torch_dtype bfloat16 -> torch_dtype bf16")
    elif named in ("float32", None):
        out.put("torch_dtype", "fp32", "neither --fp16 nor --bf16 -> torch_dtype fp32; auto is faster on a GPU")
    on = flags.take("gradient_checkpointing", default=True)
    off = flags.take("disable_gradient_checkpointing", default=False)
    out.put(
        "use_activation_checkpointing", bool(on) and not off, "--gradient_checkpointing -> use_activation_checkpointing"
    )
    flags.take("gradient_checkpointing_kwargs")


def _intervals(flags: Flags, out: Outcome, save_steps: int, logging_steps: int) -> None:
    """When to save, to log and to validate: optimizer steps there too."""
    saving = flags.take("save_strategy", default="steps")
    every = flags.take("save_steps", default=save_steps)
    if saving == "steps":
        out.put("save_steps", every)
    elif saving == "no":
        out.miss("--save_strategy no: a checkpoint is saved after each epoch")
    out.put(
        "logging_interval", flags.take("logging_steps", default=logging_steps), "--logging_steps -> logging_interval"
    )
    when = flags.take("eval_strategy", "evaluation_strategy", default="no")
    steps = flags.take("eval_steps")
    if when == "steps":
        out.put("eval_steps", steps or every, "--eval_strategy steps, --eval_steps -> eval_steps")
    where = flags.take("report_to", default="none")
    if "tensorboard" in (where if isinstance(where, list) else [where]):
        out.put("tensorboard", True, "--report_to tensorboard -> tensorboard")
    elif where not in ("none", None, [], "all"):
        out.miss(f"--report_to {where}: scalars are in vis_data/scalars.json and, with tensorboard=True, in its events")
    best = flags.take("metric_for_best_model")
    if flags.take("load_best_model_at_end"):
        out.put("save_best", "val_loss", f"--load_best_model_at_end ({best or 'loss'}) -> save_best val_loss")

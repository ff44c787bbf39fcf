"""XTuner's configs, 0.1.9 to 0.1.23. What its dicts say is read, not only PART 1: users edit both.

XTuner counts intervals in forward passes, medtune in optimizer steps, so counts are divided by `accumulative_counts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medtune.errors import ConfigError
from medtune.migrate.old_config import Name, OldConfig, names_in
from medtune.migrate.outcome import Code, Outcome
from medtune.migrate.parts import Part
from medtune.migrate.xtuner_data import migrate_data
from medtune.migrate.xtuner_runtime import migrate_hooks, migrate_runtime
from medtune.migrate.xtuner_trainer import as_model, migrate_arguments

STAGE_OF_MODEL = {"SupervisedFinetune": "sft", "DPO": "dpo", "ORPO": "orpo", "RewardModel": "rm"}
OPTIMIZERS = {
    "AdamW": "adamw",
    "AdamW8bit": "adamw_8bit",
    "PagedAdamW": "paged_adamw_32bit",
    "PagedAdamW32bit": "paged_adamw_32bit",
    "PagedAdamW8bit": "paged_adamw_8bit",
    "Adafactor": "adafactor",
    "SGD": "sgd",
}
DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float": "fp32", "auto": "auto"}
USUAL_QUANTIZATION = {
    "load_in_4bit": (True, False),
    "load_in_8bit": (True, False),
    "llm_int8_threshold": (6.0,),
    "llm_int8_has_fp16_weight": (False,),
    "bnb_4bit_compute_dtype": ("float16", "bfloat16"),
    "bnb_4bit_use_double_quant": (True,),
    "bnb_4bit_quant_type": ("nf4",),
}
PREFERENCE_NAMES = {
    "dpo": {"loss_type": "dpo_loss_type", "beta": "loss_beta", "label_smoothing": "label_smoothing"},
    "orpo": {"beta": "loss_beta"},
    "rm": {"loss_type": "rm_loss_type"},
}


def migrate(text: str, where: str) -> Outcome:
    """Read an XTuner config.

    Args:
        text: of the config.
        where: its file, for faults.

    Raises:
        ConfigError: no such config, or one for pictures, for another trainer, or that runs text as a program.
    """
    old = OldConfig(text, where)
    out = Outcome("XTuner", docstring=old.docstring)
    of_trainer = old.values.get("framework") == "huggingface"
    model = Part(as_model(old) if of_trainer else old.values.get("model"), "model", out)
    if model.kind not in STAGE_OF_MODEL:
        if model.kind.startswith(("LLaVA", "InternVL")):
            raise ConfigError(f"{where}: {model.kind} is trained on pictures; medtune trains on text alone.")
        raise ConfigError(
            f"{where}: wanted model = dict(type=SupervisedFinetune, ...), or DPO, ORPO or RewardModel, got "
            f"{model.kind or 'none'}."
        )
    out.stage = STAGE_OF_MODEL[model.kind]
    _model(old, model, out)
    if of_trainer:
        migrate_arguments(old, out)
        migrate_data(old, out)
    else:
        micro_steps = _optimizer(old, out)
        migrate_data(old, out)
        _schedule(old, out, micro_steps)
        migrate_hooks(old, out, micro_steps)
        migrate_runtime(old, out)
    _own_code(old, out)
    _leftovers(old, out)
    out.comments.update({name: comment for name, comment in old.comments.items() if name in out.settings})
    return out


def _model(old: OldConfig, model: Part, out: Outcome) -> None:
    llm = model.part("llm")
    name = llm.take("pretrained_model_name_or_path")
    if name is None:
        raise ConfigError(f"{old.where}: model.llm has no pretrained_model_name_or_path. Name the model there.")
    out.put("pretrained_model_name_or_path", name)
    lora, quantization = model.part("lora"), llm.part("quantization_config")
    bits = _bits(quantization, llm)
    if bits and not lora:
        raise ConfigError(
            f"{old.where}: model.llm is quantized and model.lora is not set; quantized weights cannot be trained. Add "
            "a lora to it, or take quantization_config away."
        )
    out.put("method", "qlora" if bits else "lora" if lora else "full")
    if bits == 8:
        out.put("quantization_bits", 8)
    if lora:
        _lora(lora, out)
    _remote_code(llm, out)
    if llm.take("revision"):
        out.put("model_revision", llm.taken["revision"])
    dtype = DTYPES.get(_plain(llm.take("torch_dtype", "auto")), "auto")
    if dtype == "bf16":
        out.put("torch_dtype", "bf16", "model.llm.torch_dtype bfloat16 -> torch_dtype bf16")
    llm.rest(silent=("low_cpu_mem_usage",), told={"attn_implementation": "chosen here, exact for packed rows"})
    tokenizer = Part(old.values.get("tokenizer"), "tokenizer", out)
    own = tokenizer.take("pretrained_model_name_or_path", name)
    if own != name:
        out.put("tokenizer_name_or_path", own, "tokenizer's own path -> tokenizer_name_or_path")
    tokenizer.rest(silent=("trust_remote_code", "padding_side", "encode_special_tokens"))
    out.put("use_activation_checkpointing", model.take("use_activation_checkpointing", True))
    for key, setting in PREFERENCE_NAMES.get(out.stage, {}).items():
        if (value := model.take(key)) is not None:
            out.put(setting, value, f"model.{key} -> {setting}" if key != setting else "")
    model.rest(
        silent=("tokenizer", "use_varlen_attn"),
        told={
            "peft_model": "merge that adapter first (`medtune convert merge`) and name the merged model",
            "max_position_embeddings": "positions are those of the model's config.json",
            "ref_llm": "the reference is the model as it was before the first step",
            "reward_token_id": "the score is a linear head's, at the last token",
            "penalty_type": "rm_centre keeps scores about 0",
            "penalty_weight": "rm_centre keeps scores about 0",
        },
    )


def _bits(quantization: Part, llm: Part) -> int | None:
    """Bits that the frozen weights are quantized to; what else the quantization says is told, unless it is ours."""
    four = quantization.take("load_in_4bit", llm.take("load_in_4bit", False))
    eight = quantization.take("load_in_8bit", llm.take("load_in_8bit", False))
    for key in list(quantization.left):
        value = quantization.take(key)
        if _last(value) not in USUAL_QUANTIZATION.get(key, ()):
            quantization.out.miss(f"quantization_config.{key}: 4 bits are NF4, double quantized, here")
    return 4 if four is True else 8 if eight is True else None


def _lora(lora: Part, out: Outcome) -> None:
    for key, setting, default in (
        ("r", "lora_r", 8),
        ("lora_alpha", "lora_alpha", 8),
        ("lora_dropout", "lora_dropout", 0.0),
    ):
        out.put(setting, lora.take(key, default))
    targets = lora.take("target_modules")
    if targets is not None:
        out.put("lora_target_modules", list(targets) if isinstance(targets, tuple) else targets, "")
    for key in ("use_rslora", "use_dora"):
        if lora.take(key) is True:
            out.put("lora_variant", key.removeprefix("use_"), f"lora.{key} -> lora_variant {key.removeprefix('use_')}")
    if (bias := lora.take("bias", "none")) != "none":
        out.miss(f"lora.bias={bias!r}: biases stay frozen; `model.lora.bias={bias}` on the command line trains them")
    if (saved := lora.take("modules_to_save")) is not None:
        out.miss(f'lora.modules_to_save: say "model.lora.modules_to_save={saved}" on the command line')
    lora.rest(silent=("task_type", "inference_mode"))
    out.mapped.append("model.llm and model.lora -> method, lora_r, lora_alpha, lora_dropout: all reached by name=value")


def _remote_code(llm: Part, out: Outcome) -> None:
    if llm.take("trust_remote_code") is True:
        out.miss(
            "trust_remote_code=True is refused and left off: models are loaded into transformers' own classes. For one "
            "that has none there, read its code, set trust_remote_code = True and model_revision = the commit you read"
        )


def _optimizer(old: OldConfig, out: Outcome) -> int:
    """PART 4's optimizer; returns the forward passes of an optimizer step."""
    wrapper = Part(old.values.get("optim_wrapper"), "optim_wrapper", out)
    optimizer = wrapper.part("optimizer")
    kind = optimizer.kind
    if kind in OPTIMIZERS:
        told = f"optim_type {kind} -> {OPTIMIZERS[kind]}" if kind != "AdamW" else ""
        out.put("optim_type", OPTIMIZERS[kind], told)
    elif isinstance(optimizer.type, Name):
        out.put("optim_type", Code(optimizer.type.source), f"optim_type {kind}: kept, as a class")
    for key in ("lr", "betas", "weight_decay"):
        if (value := optimizer.take(key)) is not None:
            out.put(key, value)
    for key in list(optimizer.left):
        value = optimizer.take(key)
        out.miss(f"optimizer.{key}: say optim_wrapper.optimizer.{key}={value!r} on the command line")
    clip = wrapper.part("clip_grad")
    out.put("max_norm", clip.take("max_norm", 1) if clip else None)
    clip.rest(silent=("error_if_nonfinite", "norm_type"))
    counts = wrapper.take("accumulative_counts", 1)
    out.put("accumulative_counts", counts)
    dtype = DTYPES.get(_plain(wrapper.take("dtype", "float16")), "fp16")
    if wrapper.kind == "OptimWrapper":
        out.put("torch_dtype", "fp32", "OptimWrapper without AMP -> torch_dtype fp32")
    elif dtype == "bf16":
        out.put("torch_dtype", "bf16", "optim_wrapper.dtype bfloat16 -> torch_dtype bf16")
    else:
        out.mapped.append("optim_wrapper.dtype float16 -> torch_dtype auto: bf16 where the GPU has it, else fp16")
    paramwise = wrapper.take("paramwise_cfg")
    if paramwise is not None:
        out.put("paramwise_cfg", paramwise)
    wrapper.rest(
        silent=("loss_scale",), told={"constructor": "paramwise_cfg and lora_plus_ratio set rates by parameter"}
    )
    return counts if isinstance(counts, int) and counts > 0 else 1


def _schedule(old: OldConfig, out: Outcome, micro_steps: int) -> None:
    loop = Part(old.values.get("train_cfg"), "train_cfg", out)
    epochs, iterations = loop.take("max_epochs"), loop.take("max_iters")
    if epochs is not None:
        out.put("max_epochs", epochs)
    if isinstance(iterations, int):
        steps = max(round(iterations / micro_steps), 1)
        out.put("max_steps", steps, f"max_iters {iterations} -> max_steps {steps}, in optimizer steps")
    loop.rest(silent=("by_epoch", "val_interval", "val_begin", "dynamic_intervals"))
    given = old.values.get("param_scheduler")
    parts = [
        Part(one, "param_scheduler", out) for one in (given if isinstance(given, (list, tuple)) else [given]) if one
    ]
    warm = next((p for p in parts if p.kind == "LinearLR" and p.left.get("start_factor", 1.0) != 1.0), None)
    out.put("warmup_ratio", 0.0)
    if warm is not None:
        _warm_up(warm, out, epochs, iterations, micro_steps)
    for part in parts:
        if part is not warm:
            _decay(part, out)


def _warm_up(warm: Part, out: Outcome, epochs: Any, iterations: Any, micro_steps: int) -> None:
    end = warm.take("end", warm.take("total_iters", 0))
    if not isinstance(end, (int, float)):
        out.miss("param_scheduler.end is computed by code: warmup_ratio stays 0.03")
        out.settings.pop("warmup_ratio")
    elif warm.take("by_epoch", True) is False:
        steps = round(end / micro_steps)
        out.put("warmup_steps", steps, f"a warm-up of {end} iterations -> warmup_steps {steps}, in optimizer steps")
    elif isinstance(epochs, (int, float)) and epochs > 0:
        out.put("warmup_ratio", round(end / epochs, 6))


def _decay(part: Part, out: Outcome) -> None:
    floor, peak = part.take("eta_min", 0.0), out.settings.get("lr")
    ratio = part.take("eta_min_ratio")
    if part.kind == "CosineAnnealingLR":
        out.put("lr_schedule", "cosine")
    elif part.kind in ("LinearLR", "PolyLR"):
        out.put("lr_schedule", "linear", f"{part.kind} after the warm-up -> lr_schedule linear")
        end = part.take("end_factor", 1.0)
        floor = end * peak if part.kind == "LinearLR" and isinstance(end, float) and isinstance(peak, float) else floor
    elif part.kind == "ConstantLR":
        out.put("lr_schedule", "constant", "ConstantLR -> lr_schedule constant")
    else:
        out.miss(f"param_scheduler {part.kind}: lr_schedule stays cosine; it may be a function of the step")
        return
    if isinstance(ratio, float) or (isinstance(floor, float) and floor and isinstance(peak, (int, float)) and peak):
        share = ratio if isinstance(ratio, float) else round(floor / peak, 6)
        out.put("min_lr_ratio", share, f"the rate at the end -> min_lr_ratio {share:g}, a share of lr")


def _own_code(old: OldConfig, out: Outcome) -> None:
    """Keep the imports, functions and values that the kept settings name."""
    for setting, value in list(out.settings.items()):
        kept = _as_code(value)
        if kept is _LOST:
            out.miss(f"{setting}: {getattr(value, 'source', 'a value in it')} is XTuner's own; set it anew")
            del out.settings[setting]
        else:
            out.settings[setting] = kept
    roots = [name for value in _flat(out.settings) for name in names_in(value.text)]
    head, values = old.own_code(roots)
    out.head += head
    for name, value in values.items():
        plain = not isinstance(value, Name) and not (isinstance(value, Mapping) and "type" in value)
        if name not in out.settings and plain:
            out.settings[name] = value


_LOST = object()


def _as_code(value: Any) -> Any:
    """A value with every `Name` as the code that it is in a config, or _LOST where the name is XTuner's."""
    if isinstance(value, Name):
        return _LOST if value.path.startswith(("xtuner.", "mmengine.")) else Code(value.source)
    if isinstance(value, (list, tuple)):
        items = [_as_code(item) for item in value]
        return _LOST if _LOST in items else type(value)(items)
    if isinstance(value, Mapping):
        found = {key: _as_code(item) for key, item in value.items()}
        return _LOST if _LOST in found.values() else found
    return value


def _flat(value: Any) -> list[Code]:
    if isinstance(value, Code):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [code for item in items for code in _flat(item)]


def _leftovers(old: OldConfig, out: Outcome) -> None:
    for line in old.skipped:
        out.miss(line)
    carried = {*out.settings, *RUNTIME}
    for name in old.lines:
        if name not in carried and name not in old.read:
            out.miss(f"{name} (line {old.lines[name]}): nothing in the old config used it")


RUNTIME = (  # noqa: SIM905 - names that XTuner reads from a config, and those of its own that mean nothing here
    "tokenizer model train_dataset val_dataset test_dataset train_dataloader val_dataloader test_dataloader "
    "optim_wrapper param_scheduler train_cfg val_cfg test_cfg val_evaluator test_evaluator default_hooks custom_hooks "
    "env_cfg visualizer log_level load_from resume randomness log_processor work_dir launcher default_scope strategy "
    "runner_type framework trainer training_args data_collator lora "
    "sequence_parallel_size use_varlen_attn sampler warmup_ratio"
).split()


def _plain(value: Any) -> str:
    """The same as text."""
    return str(_last(value))


def _last(value: Any) -> Any:
    """`float16` of `torch.float16`; a plain value stays."""
    return value.last if isinstance(value, Name) else value

"""PART 5 of an XTuner config: hooks, seed, logs, and what starts a run."""

from __future__ import annotations

from typing import Any

from medtune.migrate.old_config import OldConfig
from medtune.migrate.outcome import Outcome
from medtune.migrate.parts import Part

OURS_ALREADY = {
    "DatasetInfoHook",
    "VarlenAttnArgsToMessageHubHook",
    "ThroughputHook",
    "HFCheckpointHook",
    "EvaluateChatHook",
}


def migrate_hooks(old: OldConfig, out: Outcome, micro_steps: int) -> None:
    """Read default_hooks and custom_hooks; intervals become optimizer steps."""
    hooks = Part(old.values.get("default_hooks"), "default_hooks", out)
    _checkpoint(hooks.part("checkpoint"), out, micro_steps)
    interval = hooks.part("logger").take("interval", 10)
    out.put("logging_interval", _steps(interval, micro_steps, "logger.interval", "logging_interval", out))
    hooks.rest(silent=("timer", "param_scheduler", "sampler_seed", "runtime_info", "visualization"))
    custom = old.values.get("custom_hooks")
    for node in custom if isinstance(custom, (list, tuple)) else []:
        hook = Part(node, "custom_hooks", out)
        if hook.kind == "EvaluateChatHook":
            _questions(hook, out, micro_steps)
        elif hook.kind not in OURS_ALREADY:
            out.miss(f"custom_hooks {hook.kind}: add it to custom_hooks after `medtune copy-cfg --expand`")


def _steps(iterations: Any, micro_steps: int, was: str, name: str, out: Outcome) -> Any:
    """A count of forward passes in optimizer steps."""
    if not isinstance(iterations, int) or micro_steps == 1:
        return iterations
    steps = max(round(iterations / micro_steps), 1)
    out.mapped.append(f"{was} {iterations} -> {name} {steps}: in optimizer steps, of {micro_steps} forward passes each")
    return steps


def _checkpoint(hook: Part, out: Outcome, micro_steps: int) -> None:
    interval, by_epoch = hook.take("interval", 1), hook.take("by_epoch", True)
    if not hook or interval == -1:
        pass
    elif by_epoch is False:
        out.put("save_steps", _steps(interval, micro_steps, "save_steps", "save_steps", out))
    elif interval != 1:
        out.miss(
            f"checkpoint.interval {interval} epochs: one is saved after each epoch; save_steps sets another interval"
        )
    kept = hook.take("max_keep_ckpts", -1)
    if isinstance(kept, int) and kept > 0:
        out.put("save_total_limit", kept)
    best = hook.take("save_best")
    if best is not None:
        out.miss(f"checkpoint.save_best {best!r}: save_best is val_loss or val_accuracy here")
    hook.rest(silent=("save_optimizer", "save_param_scheduler", "save_last", "out_dir", "filename_tmpl", "rule"))


def _questions(hook: Part, out: Outcome, micro_steps: int) -> None:
    """EvaluateChatHook."""
    if out.stage == "rm":
        return  # a reward model answers nothing
    asked = hook.take("evaluation_inputs", [])
    out.put("evaluation_inputs", [asked] if isinstance(asked, str) else asked)
    every = hook.take("every_n_iters")
    out.put("evaluation_freq", _steps(every, micro_steps, "evaluation_freq", "evaluation_freq", out))
    system = hook.take("system", "")
    if system:
        out.put(
            "SYSTEM", system, "SYSTEM was for evaluation_inputs alone -> SYSTEM: for training rows that bring none too"
        )
    if (tokens := hook.take("max_new_tokens")) is not None:
        out.put("evaluation_max_new_tokens", tokens, "EvaluateChatHook.max_new_tokens -> evaluation_max_new_tokens")
    if hook.take("evaluation_images") or hook.take("image_processor"):
        out.miss("EvaluateChatHook.evaluation_images: text alone")
    hook.rest(
        silent=("tokenizer", "prompt_template"),
        told={"stop_words": "the template's", "stop_word": "the template's", "generation_kwargs": "answers are greedy"},
    )


def migrate_runtime(old: OldConfig, out: Outcome) -> None:
    """Read the seed, the visualizer, and what a command does here."""
    values = old.values
    seed = Part(values.get("randomness"), "randomness", out).take("seed")
    if isinstance(seed, int):
        out.put("seed", seed, "randomness.seed -> seed")
    else:
        out.mapped.append("randomness.seed None -> seed 42: a run is repeated exactly")
    visualizer = Part(values.get("visualizer"), "visualizer", out)
    backends = visualizer.take("vis_backends") or []
    for node in backends if isinstance(backends, (list, tuple)) else [backends]:
        kind = Part(node, "visualizer", out).kind
        if kind == "TensorboardVisBackend":
            out.put("tensorboard", True, "TensorboardVisBackend -> tensorboard")
        elif kind not in ("", "LocalVisBackend"):
            out.miss(
                f"visualizer {kind}: scalars are in vis_data/scalars.json and, with tensorboard=True, in its events"
            )
    if isinstance(values.get("work_dir"), str):
        out.put("work_dir", values["work_dir"])
    parallel = values.get("sequence_parallel_size", 1)
    if parallel != 1:
        out.miss(f"sequence_parallel_size {parallel}: a sample stays on one GPU; ranks share the data")
    if values.get("use_varlen_attn") is False:
        out.mapped.append("use_varlen_attn False -> packed samples never see each other here")
    if values.get("load_from"):
        out.miss("load_from: convert it (`medtune convert pth_to_hf`, then merge) and name the merged model")
    if values.get("resume"):
        out.miss("resume: `medtune train CONFIG --resume auto`")
    for name in ("strategy", "runner_type"):
        if values.get(name) is not None:
            out.miss(f"{name}: DeepSpeed is a flag of the command line in XTuner and not read from a config here")

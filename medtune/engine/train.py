"""From a config to a trained run: check, data, model, Runner. `medtune train` and the tests call this."""

from __future__ import annotations

import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mmengine.runner import set_random_seed

from medtune import __version__
from medtune.build import build, check, raise_faults
from medtune.config import Config
from medtune.engine import checkpoint
from medtune.engine.runner import Inputs, MedtuneRunner
from medtune.errors import ConfigError, UsageError
from medtune.models.identity import fingerprint
from medtune.models.load import model_folder

NEEDED = ("tokenizer", "model", "train_dataset", "train_dataloader", "optim_wrapper", "train_cfg")


def prepare_inputs(config: Config) -> Inputs:
    """Check the whole config, then build tokenizer and data.

    Raises:
        ConfigError: lists every fault of the config at once.
        DataError, ModelError: the data or the tokenizer cannot be used.
    """
    values = config.values
    set_random_seed(_seed(config))
    faults = [f"the config has no {name!r}" for name in NEEDED if not values.get(name)]
    raise_faults(faults + check(values))
    memo: dict[int, Any] = {}
    tokenizer = build(values["tokenizer"], memo)
    dataset = build(values["train_dataset"], memo)
    tokenizer.chat_template = dataset.template.to_jinja()  # saved so, for any tool to read what was trained on
    train_data = build(values["train_dataloader"], memo)
    val_data = build(values["val_dataloader"], memo) if values.get("val_dataloader") else None
    return Inputs(tokenizer, dataset, train_data, val_data, memo)


def build_runner(config: Config, inputs: Inputs, work_dir: Path) -> MedtuneRunner:
    """Build everything of a run up to, but not including, its first step.

    Raises:
        ModelError, EnvironmentFault: whatever loading the model raises.
    """
    seed = _seed(config)
    set_random_seed(seed)  # so that the adapter's first weights do not depend on how the data was read
    model = build(config.values["model"], inputs.memo)
    card = {**_card(config, inputs), "torch_dtype": str(model.compute_dtype).removeprefix("torch.")}
    runner = MedtuneRunner(config, model, inputs, card, work_dir)
    set_random_seed(seed)
    runner.prepare()
    return runner


def _seed(config: Config) -> int:
    seed = (config.values.get("randomness") or {}).get("seed") or 0
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ConfigError(f"seed: wanted a whole number from 0 to 2**32 - 1, got {seed!r}.")
    return seed


def _card(config: Config, inputs: Inputs) -> dict[str, Any]:
    """What `medtune.json` says of a run."""
    values, model = config.values, config.values["model"]
    llm = model.get("llm") or {}
    name = str(llm.get("pretrained_model_name_or_path", ""))
    dataset = values["train_dataset"]
    report = inputs.train_dataset.report
    source = dataset["dataset"] if isinstance(dataset.get("dataset"), dict) else {}
    template = dataset.get("prompt_template")
    return {
        "medtune_version": __version__,
        "stage": "sft",
        "method": "full" if model.get("lora") is None else "qlora" if llm.get("bits") else "lora",
        "base_model": {"name_or_path": name, "fingerprint": fingerprint(model_folder(name)) if name else None},
        "prompt_template": template if isinstance(template, str) else None,
        "system": str(dataset.get("system") or ""),
        "max_length": dataset.get("max_length"),
        "data": {
            "path": str(source.get("data_path") or source.get("path") or ""),
            "fingerprint": inputs.train_dataset.fingerprint(),
            "num_samples": report.encoded.num_samples,
            "num_tokens": report.encoded.num_tokens,
            "num_trained_tokens": report.encoded.num_trained_tokens,
        },
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "mmengine")},
    }


def train(
    config: Config, work_dir: Path, resume: str | None = None, anyway: bool = False, overwrite: bool = False
) -> MedtuneRunner:
    """Train a config to its end.

    Args:
        config: from `config.load`.
        work_dir: `work_dirs/NAME`.
        resume: None, "auto" (newest valid checkpoint of `work_dir`, or from the start), or a checkpoint folder.
        anyway: resume though data, batch or base model differ.
        overwrite: move an earlier run's files aside; without it or `resume` a work dir with checkpoints is refused.

    Raises:
        UsageError: the work dir holds checkpoints, or another training writes there.
        And as `prepare_inputs`, `build_runner`, `MedtuneRunner.resume` and `.train`.
    """
    if resume and resume != "auto" and not Path(resume).is_dir():
        raise UsageError(f"--resume {resume}: no such checkpoint folder. Name one, or `auto`.")
    if not resume and not overwrite:
        _refuse_earlier(work_dir)
    inputs = prepare_inputs(config)  # before anything is written
    with checkpoint.lock(work_dir):
        checkpoint.clear_leftovers(work_dir)
        if not resume and overwrite:
            _move_aside(work_dir)
        elif not resume:
            _refuse_earlier(work_dir)  # another training may have ended meanwhile
        runner = build_runner(config, inputs, work_dir)
        if resume == "auto":
            found = checkpoint.newest_valid(work_dir, runner.logger.warning)
            if found is None:
                runner.logger.info(f"--resume auto: no valid checkpoint in {work_dir}; training from the start")
            else:
                runner.resume(found, anyway)
        elif resume:
            runner.resume(resume, anyway)
        runner.train()
    return runner


def _refuse_earlier(work_dir: Path) -> None:
    earlier = checkpoint.find_checkpoints(work_dir)
    if earlier:
        raise UsageError(
            f"{work_dir} holds {earlier[0].name} of an earlier run. Continue it with --resume auto, train anew "
            "with --overwrite (which moves it aside), or choose another --work-dir."
        )


def _move_aside(work_dir: Path) -> None:
    """Move all of an earlier run but the lock that we hold."""
    earlier = [item for item in work_dir.iterdir() if item.name != checkpoint.LOCK]
    if earlier:
        aside = work_dir.with_name(f"{work_dir.name}_before_{datetime.datetime.now():%Y%m%d_%H%M%S_%f}")
        aside.mkdir(mode=0o700)
        for item in earlier:
            item.rename(aside / item.name)

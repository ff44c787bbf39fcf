"""From a config to a trained run: check, data, model, Runner. `medtune train` and the tests call this."""

from __future__ import annotations

import datetime
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mmengine.runner import set_random_seed

from medtune.build import build, check, raise_faults
from medtune.config import Config
from medtune.engine import checkpoint, distributed, signals
from medtune.engine.record import run_record
from medtune.engine.runner import Inputs, MedtuneRunner
from medtune.errors import ConfigError, UsageError
from medtune.files import private
from medtune.models.load import pick_device

WRITTEN = (checkpoint.LAST, "best_checkpoint", "loss.png", "train_results.json", "eval_results.json")
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
    with distributed.together():
        model = build(config.values["model"], inputs.memo)
    record = run_record(config, inputs.train_dataset, model)
    runner = MedtuneRunner(config, model, inputs, record, work_dir)
    set_random_seed((seed + distributed.rank()) % 2**32)  # from here on, dropout, which is each rank's own
    runner.prepare()
    return runner


def _seed(config: Config) -> int:
    seed = (config.values.get("randomness") or {}).get("seed") or 0
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ConfigError(f"seed: wanted a whole number from 0 to 2**32 - 1, got {seed!r}.")
    return seed


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
        PeerFault: another rank's fault, where several processes train.
        And as `prepare_inputs`, `build_runner`, `MedtuneRunner.resume` and `.train`.
    """
    with ExitStack() as held:
        held.enter_context(private())  # a run's folder may hold patients' text
        held.enter_context(signals.handled_by(signals.stop_before_training))
        held.enter_context(distributed.process_group(_device(config)))
        with distributed.together():
            inputs = _claim(config, work_dir, resume, overwrite, held)
        distributed.log_to(work_dir)
        runner = build_runner(config, inputs, work_dir)
        _resume(runner, resume, anyway)
        distributed.check_same_weights(runner.model)
        runner.train()
    return runner


def _device(config: Config) -> str:
    llm = (config.values.get("model") or {}).get("llm") or {}
    return pick_device(llm.get("device") or "auto")


def _claim(config: Config, work_dir: Path, resume: str | None, overwrite: bool, held: ExitStack) -> Inputs:
    """Prepare the inputs and, before anything is written, take the work dir; rank 0 does that for all."""
    if resume and resume != "auto" and not Path(resume).is_dir():
        raise UsageError(f"--resume {resume}: no such checkpoint folder. Name one, or `auto`.")
    main = distributed.is_main()
    if main and not resume and not overwrite:
        _refuse_earlier(work_dir)
    inputs = prepare_inputs(config)
    if main:
        held.enter_context(checkpoint.lock(work_dir))
        checkpoint.clear_leftovers(work_dir)
        if not resume and overwrite:
            _move_aside(work_dir)
        elif not resume:
            _refuse_earlier(work_dir)  # another training may have ended meanwhile
    return inputs


def _resume(runner: MedtuneRunner, resume: str | None, anyway: bool) -> None:
    """Continue from a checkpoint; rank 0 chooses it for all."""
    if resume == "auto":
        found = checkpoint.newest_valid(runner.folder, runner.logger.warning) if distributed.is_main() else None
        resume = distributed.gather_text(str(found or ""))[0]
        if not resume:
            runner.logger.info(f"--resume auto: no valid checkpoint in {runner.folder}; training from the start")
    if resume:
        runner.resume(resume, anyway)


def _refuse_earlier(work_dir: Path) -> None:
    earlier = checkpoint.find_checkpoints(work_dir)
    if earlier:
        raise UsageError(
            f"{work_dir} holds {earlier[0].name} of an earlier run. Continue it with --resume auto, train anew "
            "with --overwrite (which moves it aside), or choose another --work-dir."
        )


def _move_aside(work_dir: Path) -> None:
    """Move what an earlier run wrote, and nothing else, to a folder beside the work dir."""
    timestamps = [item for item in work_dir.iterdir() if (item / "vis_data").is_dir()]
    named = [work_dir / name for name in WRITTEN if (work_dir / name).exists()]
    earlier = [*checkpoint.find_checkpoints(work_dir), *timestamps, *named, *work_dir.glob("rank_*.log")]
    if earlier:
        aside = work_dir.with_name(f"{work_dir.name}_before_{datetime.datetime.now():%Y%m%d_%H%M%S_%f}")
        aside.mkdir(mode=0o700)
        for item in earlier:
            item.rename(aside / item.name)

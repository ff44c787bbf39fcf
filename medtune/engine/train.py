"""From a config to a trained run: check, data, model, Runner. `medtune train` and the tests call this."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mmengine.runner import set_random_seed

from medtune.build import build, check, raise_faults
from medtune.config import Config
from medtune.data.pipeline import build_dataset
from medtune.engine import checkpoint, distributed, signals
from medtune.engine import resume as resuming
from medtune.engine.identity import identity
from medtune.engine.record import base_model, run_record
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
    if not faults:
        faults += _kind_faults(values)
    raise_faults(faults + check(values))
    memo: dict[int, Any] = {}
    tokenizer = build(values["tokenizer"], memo)
    dataset = build(values["train_dataset"], memo)
    if trained_on := dataset.template.to_jinja():
        tokenizer.chat_template = trained_on  # saved so, for any tool to read
    train_data = build(values["train_dataloader"], memo)
    val_data = build(values["val_dataloader"], memo) if values.get("val_dataloader") else None
    return Inputs(tokenizer, dataset, train_data, val_data, memo)


def _kind_faults(values: dict[str, Any]) -> list[str]:
    """Data of another kind than the stage learns from would train in silence."""
    stage, data = values["model"], values["train_dataset"]
    if not (isinstance(stage, dict) and isinstance(data, dict) and data.get("type") is build_dataset):
        return []
    wanted, got = getattr(stage.get("type"), "kind", "answers"), data.get("kind", "answers")
    return [f"train_dataset.kind: {got!r}, and the model trains on {wanted!r}"] if got != wanted else []


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
    with runner.forgotten_on_fault():
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
        And as `prepare_inputs`, `build_runner`, `resume.require_same_run`, `MedtuneRunner.resume` and `.train`.
    """
    with ExitStack() as held:
        held.enter_context(private())  # a run's folder may hold patients' text
        held.enter_context(signals.handled_by(signals.stop_before_training))
        held.enter_context(distributed.process_group(_device(config)))
        with distributed.together():
            inputs = _claim(config, work_dir, resume, overwrite, held)
        distributed.log_to(work_dir)
        skipped: list[str] = []
        begin = resume and _beginning(config, inputs, work_dir, resume, anyway, skipped)
        runner = build_runner(config, inputs, work_dir)
        with runner.forgotten_on_fault():
            for line in skipped:
                runner.logger.warning(line)
            if begin:
                runner.resume(begin)
            elif resume:
                runner.logger.info(f"--resume auto: no valid checkpoint in {work_dir}; training from the start")
            distributed.check_same_weights(runner.model)
            if begin and resume != "auto":
                _leave_later(runner, begin)
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


def _beginning(
    config: Config, inputs: Inputs, work_dir: Path, wanted: str, anyway: bool, skipped: list[str]
) -> Path | None:
    """The checkpoint to go on from, found to fit before the time that loading a model takes."""
    folder = resuming.find(work_dir, wanted, skipped.append)
    with distributed.together():
        if folder and not anyway and distributed.is_main():
            resuming.require_same_run(folder, identity(config, inputs, base_model(config)), config.text)
    return folder


def _leave_later(runner: MedtuneRunner, begin: Path) -> None:
    """Go on from an older checkpoint that was named: the later ones must not be taken for this run's."""
    moved = resuming.move_later(runner.folder, begin) if distributed.is_main() else None
    if moved:
        names = ", ".join(folder.name for folder in moved[0])
        runner.logger.info(f"moved {names} to {moved[1]}: the run goes on from {begin.name}, before them")


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
        resuming.move(earlier, resuming.new_aside(work_dir))

"""Resuming: a run that was cut in two equals the run in one piece, bit for bit; and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from helpers import (
    cli,
    cli_environment,
    run_cli,
    scalars,
    small_config,
    small_run,
    tiny_llama_folder,
    words_of,
    write_questions,
)

from medtune.engine import checkpoint
from medtune.engine.train import train
from medtune.errors import EnvironmentFault, ModelError, UsageError

# Dropout, packing and accumulation are on; 6 steps are an epoch, so a cut after 2 or 4 is in the middle of one.
METHODS = {
    "lora": {"method": "lora", "lora_dropout": 0.2},
    "qlora": {"method": "qlora", "lora_dropout": 0.2, "torch_dtype": "bf16"},
    "full bf16, with fp32 masters": {"method": "full", "torch_dtype": "bf16", "lr": 1e-3},
    "full fp16, with a loss scale": {"method": "full", "torch_dtype": "fp16", "lr": 1e-3},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llama_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_questions(tmp_path_factory.mktemp("data") / "questions.jsonl")


@pytest.fixture(scope="module")
def cut(tmp_path_factory, model, data):
    """A finished run of 4 steps with a checkpoint at each; copy it before changing it."""
    folder = tmp_path_factory.mktemp("runs") / "cut"
    small_run(folder, model, data, save_steps=1)
    return folder


def weights(folder):
    """Bytes of the trained weights, of the optimizer's state and of the random generators."""
    return {file.name: file.read_bytes() for file in sorted(Path(folder).glob("*.safetensors"))}


def copied(run, place, without=()):
    shutil.copytree(run, place)
    for name in without:
        shutil.rmtree(place / name)
    return place


def log_of(run):
    return "".join(f.read_text() for f in sorted(Path(run).glob("*/*.log")))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_2_steps_and_then_2_more_equal_4_in_one_piece(tmp_path, model, data, method):
    settings = {**METHODS[method], "save_steps": 2}
    whole = small_run(tmp_path / "whole", model, data, **settings)
    halves = copied(tmp_path / "whole", tmp_path / "halves", without=["iter_4.pth"])
    shutil.rmtree(next(halves.glob("*/vis_data")))
    torch.manual_seed(99)  # whatever state the process is in
    resumed = small_run(halves, model, data, resume="auto", **settings)
    assert scalars(resumed) == scalars(whole)[2:]
    assert weights(halves / "iter_4.pth") == weights(tmp_path / "whole" / "iter_4.pth")
    assert resumed.loop.progress == whole.loop.progress


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"accumulative_counts": 1, "batch_size": 2}, {"val_ratio": 0.2}], ids=str)
def test_a_cut_at_any_step_over_two_epochs_gives_the_same_end(tmp_path, model, data, settings):
    settings = {**settings, "max_steps": 14, "save_steps": 1, "logging_interval": 1}
    whole = small_run(tmp_path / "whole", model, data, **settings)
    assert whole.loop.steps_per_epoch in (5, 6)
    last = weights(tmp_path / "whole" / "iter_14.pth")
    for step in (1, whole.loop.steps_per_epoch, whole.loop.steps_per_epoch + 1, 13):
        place = tmp_path / str(step)
        place.mkdir()
        shutil.copytree(tmp_path / "whole" / f"iter_{step}.pth", place / f"iter_{step}.pth")
        resumed = small_run(place, model, data, resume="auto", **settings)
        assert scalars(resumed) == scalars(whole)[step:]
        assert weights(place / "iter_14.pth") == last


def test_resuming_at_the_end_of_an_epoch_saves_that_epoch_and_goes_on(tmp_path, model, data):
    settings = {"max_steps": None, "max_epochs": 2}
    small_run(tmp_path / "whole", model, data, **settings)
    halves = copied(tmp_path / "whole", tmp_path / "halves", without=["epoch_2.pth"])
    small_run(halves, model, data, resume="auto", **settings)
    assert weights(halves / "epoch_2.pth") == weights(tmp_path / "whole" / "epoch_2.pth")
    assert (halves / "last_checkpoint").read_text() == "epoch_2.pth\n"


@pytest.mark.slow
def test_a_finished_run_resumes_to_its_end_and_stays_as_it_is(tmp_path, model, data, cut):
    run = copied(cut, tmp_path / "run")
    before = weights(run / "iter_4.pth")
    resumed = small_run(run, model, data, resume="auto", save_steps=1)
    assert resumed.loop.iter == 4
    assert weights(run / "iter_4.pth") == before


def test_a_run_resumes_from_a_named_checkpoint_after_it_was_moved(tmp_path, model, data, cut):
    run = copied(cut, tmp_path / "elsewhere")
    resumed = small_run(tmp_path / "new", model, data, resume=str(run / "iter_2.pth"), save_steps=1)
    assert resumed.loop.iter == 4
    assert weights(tmp_path / "new" / "iter_4.pth") == weights(cut / "iter_4.pth")


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_auto_skips_a_damaged_newest_checkpoint_and_says_so(tmp_path, model, data, cut, file):
    run = copied(cut, tmp_path / "run")
    damaged = run / "iter_4.pth" / file
    damaged.write_bytes(damaged.read_bytes()[:-7])
    resumed = small_run(run, model, data, resume="auto", save_steps=1)
    assert resumed.loop.iter == 4
    log = log_of(run)
    assert "skipped: " in log and f"iter_4.pth/{file}" in log
    assert "resumed from iter_3.pth at step 3 of 4" in log
    assert weights(run / "iter_4.pth") == weights(cut / "iter_4.pth")


def test_auto_without_a_valid_checkpoint_starts_anew_and_says_so(tmp_path, model, data, cut):
    small_run(tmp_path / "run", model, data, resume="auto", save_steps=1)
    assert "no valid checkpoint" in log_of(tmp_path / "run")
    assert weights(tmp_path / "run" / "iter_4.pth") == weights(cut / "iter_4.pth")


def test_a_damaged_checkpoint_that_was_named_is_refused_by_name(tmp_path, model, data, cut):
    run = copied(cut, tmp_path / "run")
    (run / "iter_3.pth" / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"iter_3\.pth/adapter_model\.safetensors: missing"):
        small_run(tmp_path / "new", model, data, resume=str(run / "iter_3.pth"))
    with pytest.raises(UsageError, match="no such checkpoint folder"):
        small_run(tmp_path / "new", model, data, resume=str(run / "iter_33.pth"))


@pytest.mark.parametrize(
    "change, told",
    [
        ({"SYSTEM": "Be brief."}, "data"),
        ({"max_length": 128}, "data"),
        ({"accumulative_counts": 4}, "packs_per_step"),
        ({"seed": 8}, "seed"),
        ({"lora_target_modules": "q_proj,v_proj"}, "trained"),
        ({"max_steps": 9}, "num_steps"),
        ({"lr": 1e-4}, "optimizer_settings"),
    ],
    ids=str,
)
def test_a_run_that_would_not_give_the_same_numbers_is_refused_with_the_difference(
    tmp_path, model, data, cut, change, told
):
    with pytest.raises(UsageError, match=rf"differs in .*{told}.*--resume-anyway"):
        small_run(tmp_path / "run", model, data, resume=str(cut / "iter_2.pth"), **change)


def test_another_base_model_is_refused(tmp_path, data, cut):
    other = tiny_llama_folder(tmp_path / "other", seed=5)
    with pytest.raises(UsageError, match="base_model"):
        small_run(tmp_path / "run", other, data, resume=str(cut / "iter_2.pth"))


def test_anyway_goes_on_with_other_data_but_never_with_other_weights(tmp_path, model, data, cut):
    config = small_config(model, data, SYSTEM="Be brief.", max_steps=6)
    runner = train(config, tmp_path / "run", str(cut / "iter_2.pth"), anyway=True)
    assert runner.loop.iter == 6
    config = small_config(model, data, lora_target_modules="q_proj,v_proj")
    with pytest.raises(UsageError, match="trained"):
        train(config, tmp_path / "other", str(cut / "iter_2.pth"), anyway=True)


@pytest.mark.parametrize("async_save", [False, True])
def test_a_save_that_fails_ends_the_run_with_the_last_checkpoint_whole(tmp_path, model, data, monkeypatch, async_save):
    fail_at_step(3, monkeypatch)
    with pytest.raises(EnvironmentFault, match=r"iter_3.pth: not saved: No space left on device.*--resume auto"):
        small_run(tmp_path, model, data, save_steps=1, async_save=async_save)
    assert sorted(f.name for f in tmp_path.glob("*.pth")) == ["iter_1.pth", "iter_2.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "iter_2.pth\n"
    checkpoint.verify(tmp_path / "iter_2.pth")


def test_the_limit_removes_nothing_before_the_new_checkpoint_is_whole(tmp_path, model, data, monkeypatch):
    fail_at_step(2, monkeypatch)
    with pytest.raises(EnvironmentFault, match="No space left"):
        small_run(tmp_path, model, data, save_steps=1, save_total_limit=1)
    assert [f.name for f in tmp_path.glob("*.pth")] == ["iter_1.pth"]


def fail_at_step(step, monkeypatch):
    """The disk is full after the last file of that step's checkpoint."""
    write = checkpoint.save_random_states

    def failing(folder, states):
        write(folder, states)
        if folder.name.startswith(f".tmp-iter_{step}.pth"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_random_states", failing)


def test_half_written_folders_of_a_killed_run_are_cleared_by_the_next(tmp_path, model, data, cut):
    run = copied(cut, tmp_path / "run", without=["iter_4.pth"])
    (run / "iter_3.pth").rename(run / ".tmp-iter_3.pth-4711")
    small_run(run, model, data, resume="auto", save_steps=1)
    assert not list(run.glob(".tmp-*"))
    assert "resumed from iter_2.pth" in log_of(run)
    assert weights(run / "iter_4.pth") == weights(cut / "iter_4.pth")


# ---------------------------------------------------------------- signals and kills, in processes of their own


def started(run, model, data, **settings):
    """A training that runs until it is stopped; returns when it has made a step."""
    words = words_of(model, data, max_steps=100_000, logging_interval=1, warmup_ratio=0, **settings)
    process = subprocess.Popen(
        cli(*words, "--work-dir", str(run)),
        env=cli_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 60
    while not any(run.glob("*/vis_data/scalars.json")):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_at_the_step_it_came_and_the_run_goes_on_from_there(tmp_path, model, data, number, code):
    run = tmp_path / "run"
    process = started(run, model, data)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "Continue with --resume auto." in stderr
    assert "Traceback" not in stderr
    (saved,) = run.glob("*.pth")
    checkpoint.verify(saved)
    step = json.loads((saved / "state.json").read_text())["progress"]["step"]
    assert step == len(scalars(run))  # not one finished step is lost
    words = words_of(model, data, max_steps=100_000, logging_interval=1, warmup_ratio=0)
    more = [word for word in words if not word.startswith("max_steps=")] + [f"max_steps={step + 1}"]
    done = run_cli(*more, "--work-dir", str(run), "--resume", "auto", "--resume-anyway", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(scalars(run)) == step + 1


@pytest.mark.slow
def test_after_kill_9_at_several_moments_the_run_resumes_to_the_same_end(tmp_path, model, data):
    settings = {"save_steps": 1, "max_steps": 40, "save_total_limit": 2}
    small_run(tmp_path / "whole", model, data, **settings)
    run = tmp_path / "run"
    words = [*words_of(model, data, **settings), "--work-dir", str(run), "--resume", "auto"]
    kills = 0
    for wait in (0.05, 0.3, 0.6):
        process = subprocess.Popen(cli(*words), env=cli_environment(), stdout=subprocess.DEVNULL)
        before = len(scalars(run)) if run.exists() else 0
        end = time.monotonic() + 60
        while process.poll() is None and (not run.exists() or len(scalars(run)) <= before):
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(wait)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        assert all((f / "manifest.json").exists() for f in run.glob("*.pth"))
    assert kills > 0
    done = run_cli(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert weights(run / "iter_40.pth") == weights(tmp_path / "whole" / "iter_40.pth")
    assert not [f for f in run.iterdir() if f.name.startswith((".tmp-", ".old-"))]


@pytest.mark.slow
def test_a_second_training_in_the_same_folder_is_refused_while_the_first_runs(tmp_path, model, data):
    run = tmp_path / "run"
    process = started(run, model, data, save_steps=10**6)
    try:
        done = run_cli(*words_of(model, data), "--work-dir", str(run), cwd=tmp_path)
        assert done.returncode == 2
        assert "another training writes there" in done.stderr
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

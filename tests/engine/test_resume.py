"""Resuming: a run that was cut in two equals the run in one piece, bit for bit; and what is refused."""

from __future__ import annotations

import json
import os
import re
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

from medtune.engine import checkpoint, resume
from medtune.engine.train import train
from medtune.errors import EnvironmentFault, ModelError, UsageError
from medtune.files import write_manifest

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
        ({"SYSTEM": "Be brief."}, "SYSTEM '' -> 'Be brief.'"),
        ({"max_length": 128}, "max_length 96 -> 128"),
        ({"accumulative_counts": 4}, "accumulative_counts 2 -> 4"),
        ({"seed": 8}, "seed 7 -> 8"),
        ({"lora_target_modules": "q_proj,v_proj"}, "lora_target_modules 'all-linear' -> 'q_proj,v_proj'"),
        ({"max_steps": 9}, "max_steps 4 -> 9"),
        ({"lora_dropout": 0.3}, "lora_dropout 0.1 -> 0.3"),
        ({"lr_schedule": "wsd"}, "lr_schedule 'cosine' -> 'wsd'"),
        ({"optim_wrapper.clip_grad.max_norm": 2}, "optim_wrapper.clip_grad.max_norm 1 -> 2"),
        ({"train_dataloader.shuffle": False}, "train_dataloader.shuffle True -> False"),
        ({"lr": 1e-4, "batch_size": 3}, "batch_size 1 -> 3; lr 0.01 -> 0.0001"),
    ],
    ids=str,
)
def test_a_run_that_would_not_give_the_same_numbers_is_refused_with_every_setting_that_differs(
    tmp_path, model, data, cut, change, told
):
    refused = rf"differs from this one: {re.escape(told)}\. It would .*--resume-anyway"
    with pytest.raises(UsageError, match=refused):
        small_run(tmp_path / "run", model, data, resume=str(cut / "iter_2.pth"), save_steps=7, **change)
    assert [f.name for f in (tmp_path / "run").iterdir()] == [".lock"]


def test_settings_that_leave_the_numbers_alone_may_change_and_the_run_is_the_same(tmp_path, model, data, cut):
    moved = shutil.copytree(model, tmp_path / "moved")
    others = {"use_activation_checkpointing": True, "logging_interval": 3, "save_steps": 4, "dataloader_num_workers": 1}
    small_run(tmp_path / "run", moved, data, resume=str(cut / "iter_2.pth"), **others)
    assert weights(tmp_path / "run" / "iter_4.pth") == weights(cut / "iter_4.pth")


def test_other_data_under_the_same_name_and_another_base_model_are_told_apart(tmp_path, model, data, cut):
    file, folder = tmp_path / "questions.jsonl", tiny_llama_folder(tmp_path / "other", seed=5)
    file.write_text(data.read_text())
    small_run(tmp_path / "first", model, file, save_steps=2)
    file.write_text(data.read_text().replace("aspirin", "ibuprofen"))
    with pytest.raises(UsageError, match=r"this one: the data's content\. It would"):
        small_run(tmp_path / "first", model, file, resume="auto", save_steps=2)
    with pytest.raises(UsageError, match=r"this one: pretrained_model_name_or_path '.*' -> '.*'\. It would"):
        small_run(tmp_path / "run", folder, data, resume=str(cut / "iter_2.pth"))
    assert len(list((tmp_path / "first").glob("*/vis_data"))) == 1


def test_a_data_file_that_only_moved_is_not_told_among_the_differences(tmp_path, model, data, cut):
    moved = Path(shutil.copy(data, tmp_path / "moved.jsonl"))
    with pytest.raises(UsageError, match=r"this one: batch_size 1 -> 3\. It would"):
        small_run(tmp_path / "run", model, moved, resume=str(cut / "iter_2.pth"), batch_size=3)


def test_the_config_inside_a_checkpoint_is_never_run_when_it_is_compared(tmp_path, model, data, cut):
    run = copied(cut, tmp_path / "run")
    canary = tmp_path / "canary"
    for text in (f"open({str(canary)!r}, 'w')\nlr = 3\n", "(" * 5000, "lr = \0"):
        (run / "iter_2.pth" / "config.py").write_text(text)
        write_manifest_again(run / "iter_2.pth")
        with pytest.raises(UsageError, match=r"lr.* -> 0\.0001"):
            small_run(tmp_path / "new", model, data, resume=str(run / "iter_2.pth"), lr=1e-4)
    assert not canary.exists()


def write_manifest_again(folder):
    (folder / "manifest.json").unlink()
    write_manifest(folder)


def test_anyway_goes_on_with_other_data_but_never_with_other_weights(tmp_path, model, data, cut):
    config = small_config(model, data, SYSTEM="Be brief.", max_steps=6)
    runner = train(config, tmp_path / "run", str(cut / "iter_2.pth"), anyway=True)
    assert runner.loop.iter == 6
    config = small_config(model, data, lora_target_modules="q_proj,v_proj")
    with pytest.raises(UsageError, match="other trained weights"):
        train(config, tmp_path / "other", str(cut / "iter_2.pth"), anyway=True)
    assert not list((tmp_path / "other").glob("*/vis_data"))


# ---------------------------------------------------------------- from an older checkpoint than the newest


def test_going_on_from_an_older_checkpoint_moves_the_later_ones_aside_and_auto_follows(tmp_path, model, data, cut):
    run = copied(cut, tmp_path / "run")
    small_run(run, model, data, resume=str(run / "iter_2.pth"), save_steps=10, max_steps=4)
    (aside,) = tmp_path.glob("run_before_*")
    assert sorted(f.name for f in aside.glob("*.pth")) == ["iter_3.pth", "iter_4.pth"]
    assert weights(aside / "iter_4.pth") == weights(cut / "iter_4.pth")
    assert f"moved iter_4.pth, iter_3.pth to {aside}: the run goes on from iter_2.pth" in log_of(run)
    assert sorted(f.name for f in run.glob("*.pth")) == ["iter_1.pth", "iter_2.pth", "iter_4.pth"]
    assert checkpoint.newest_valid(aside, print) == aside / (aside / "last_checkpoint").read_text().strip()


def test_nothing_moves_where_nothing_is_later_or_the_named_checkpoint_is_damaged(tmp_path, model, data, cut):
    run = copied(cut, tmp_path / "run")
    small_run(run, model, data, resume=str(run / "iter_4.pth"), save_steps=1)
    (run / "iter_2.pth" / "optimizer.safetensors").unlink()
    with pytest.raises(ModelError, match="missing"):
        small_run(run, model, data, resume=str(run / "iter_2.pth"), save_steps=1)
    with pytest.raises(UsageError, match=r"lr 0\.01"):
        small_run(run, model, data, resume=str(run / "iter_3.pth"), save_steps=1, lr=1.0)
    assert sorted(f.name for f in run.glob("*.pth")) == [f"iter_{n}.pth" for n in (1, 2, 3, 4)]
    assert not list(tmp_path.glob("run_before_*"))


def branch(folder, best_step, steps=(1, 2, 3, 4)):
    """A run's folder with a checkpoint at each step, which remembers `best_step[step]` as the best so far."""
    for step in steps:
        saved = folder / f"iter_{step}.pth"
        saved.mkdir(parents=True)
        hooks = {"ValidationHook": {"best_step": best_step[step]}}
        (saved / "state.json").write_text(json.dumps({"progress": {"step": step}, "hooks": hooks}))
    checkpoint.point_last_to(folder / f"iter_{steps[-1]}.pth")
    checkpoint.point_last_to(folder / f"iter_{best_step[steps[-1]]}.pth", checkpoint.BEST)
    return folder


def pointers(folder):
    names = {name: folder / name for name in ("last_checkpoint", "best_checkpoint")}
    return [file.read_text().strip() if file.exists() else None for file in names.values()]


def test_the_pointers_follow_to_what_was_last_and_best_at_that_step(tmp_path):
    run = branch(tmp_path / "run", {1: 1, 2: 1, 3: 3, 4: 3})
    _, aside = resume.move_later(run, run / "iter_2.pth")
    assert (pointers(run), pointers(aside)) == (["iter_2.pth", "iter_1.pth"], ["iter_4.pth", "iter_3.pth"])
    run = branch(tmp_path / "gone", {2: 1, 3: 3}, steps=(2, 3))  # the limit on checkpoints took iter_1
    _, aside = resume.move_later(run, run / "iter_2.pth")
    assert (pointers(run), pointers(aside)) == (["iter_2.pth", None], ["iter_3.pth", "iter_3.pth"])
    run = branch(tmp_path / "kept", {1: 1, 2: 1, 3: 1, 4: 1})
    _, aside = resume.move_later(run, run / "iter_2.pth")
    assert (pointers(run), pointers(aside)) == (["iter_2.pth", "iter_1.pth"], ["iter_4.pth", None])


def test_from_a_checkpoint_of_another_folder_all_of_this_one_are_left(tmp_path):
    run = branch(tmp_path / "run", {1: 1, 2: 1, 3: 3, 4: 3})
    elsewhere = branch(tmp_path / "elsewhere", {9: 9}, steps=(9,))
    moved, _ = resume.move_later(run, elsewhere / "iter_9.pth")
    assert [f.name for f in moved] == ["iter_4.pth", "iter_3.pth", "iter_2.pth", "iter_1.pth"]
    assert (pointers(run), checkpoint.find_checkpoints(run)) == ([None, None], [])
    assert pointers(elsewhere) == ["iter_9.pth", "iter_9.pth"]


@pytest.mark.parametrize("best", [{1: 1, 2: 1, 3: 3, 4: 3}, {1: 1, 2: 2, 3: 3, 4: 4}], ids=str)
def test_a_kill_at_any_moment_of_moving_aside_loses_nothing_and_the_same_command_mends_it(tmp_path, best, monkeypatch):
    """Every rename, unlink, write and mkdir in turn is the last thing that happens."""
    moment, killed = 0, True
    while killed:
        run = branch(tmp_path / str(moment) / "run", best)
        killed = dies_at(moment, lambda run=run: resume.move_later(run, run / "iter_2.pth"), monkeypatch)
        asides = list(run.parent.glob("run_before_*"))
        there = [f.name for place in (run, *asides) for f in place.glob("*.pth")]
        assert sorted(there) == [f"iter_{n}.pth" for n in (1, 2, 3, 4)]
        left = [f.name for f in checkpoint.find_checkpoints(run)]
        assert left == [f"iter_{n}.pth" for n in range(len(left), 0, -1)]  # the branch from its start on, no hole
        assert all(name is None or (run / name).is_dir() for name in pointers(run))
        resume.move_later(run, run / "iter_2.pth")
        assert [f.name for f in checkpoint.find_checkpoints(run)] == ["iter_2.pth", "iter_1.pth"]
        assert pointers(run) == ["iter_2.pth", f"iter_{best[2]}.pth"]
        moment += 1
    assert moment > 8


class Killed(BaseException):
    pass


def dies_at(moment, act, monkeypatch):
    """Whether `act` came as far as its change number `moment` to the disk, which does not happen, nor any after it."""
    count = 0

    def counted(change):
        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            if count > moment:
                raise Killed
            return change(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patched:
        for name in ("rename", "replace", "unlink", "mkdir", "write_text"):
            patched.setattr(Path, name, counted(getattr(Path, name)))
        try:
            act()
        except Killed:
            return True
    return False


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


def test_what_a_killed_run_did_not_tidy_is_tidied_before_the_first_step(tmp_path, model, data, cut, monkeypatch):
    """Also where the work dir was named as seen from the current folder."""
    copied(cut, tmp_path / "run", without=["iter_4.pth"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("medtune.engine.loops.TrainLoop._run_epoch", lambda self: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        small_run(Path("run"), model, data, resume="auto", save_steps=1, save_total_limit=1)
    assert [f.name for f in (tmp_path / "run").glob("*.pth")] == ["iter_3.pth"]


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

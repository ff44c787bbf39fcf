"""Saving in the background: one at a time, faults told, nothing that later steps do gets into the file."""

from __future__ import annotations

import shutil
import threading
from collections import namedtuple

import pytest
from helpers import scalars, small_run, tiny_llama_folder, write_questions

from medtune.engine import checkpoint
from medtune.engine.saving import Saver
from medtune.errors import EnvironmentFault


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    return tiny_llama_folder(folder / "tiny"), write_questions(folder / "questions.jsonl")


def test_saves_in_the_background_follow_each_other_and_the_last_is_waited_for():
    saver, order, go = Saver(), [], threading.Event()
    saver.in_background = True
    saver.run(lambda: (go.wait(10), order.append(1)))
    saver.check()
    assert order == []
    threading.Timer(0.05, go.set).start()
    saver.run(lambda: order.append(2))
    assert order[0] == 1
    saver.wait()
    assert order == [1, 2]


@pytest.mark.parametrize("call", ["check", "wait", "run"])
def test_a_fault_in_the_background_is_raised_once_by_the_next_call(call):
    def fail():
        raise EnvironmentFault("the disk is full")

    saver = Saver()
    saver.in_background = True
    saver.run(fail)
    saver._thread.join()
    with pytest.raises(EnvironmentFault, match="the disk is full"):
        getattr(saver, call)(*([lambda: None] if call == "run" else []))
    saver.wait()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"method": "full", "lr": 1e-3}, marks=pytest.mark.slow),
        pytest.param({"method": "full", "torch_dtype": "bf16", "lr": 1e-3}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_checkpoint_written_during_later_steps_is_that_of_its_own_step(tmp_path, place, monkeypatch, settings):
    """Fault put in: a snapshot that aliases the weights would hold those of the steps after it."""
    settings = {**settings, "save_steps": 2}
    small_run(tmp_path / "sync", *place, **settings)
    steps_done, write = [], checkpoint.write_folder
    held = threading.Event()

    def late(folder, fill):
        if folder.name == "iter_2.pth":
            held.wait(20)
        write(folder, fill)

    def release(hook, runner, **_):
        steps_done.append(runner.loop.iter)
        if runner.loop.iter == 3:
            held.set()

    from medtune.engine.hooks import DatasetInfoHook

    monkeypatch.setattr(checkpoint, "write_folder", late)
    monkeypatch.setattr(DatasetInfoHook, "after_train_iter", release, raising=False)
    small_run(tmp_path / "async", *place, **settings, async_save=True)
    assert steps_done == [1, 2, 3, 4]
    for name in ("iter_2.pth", "iter_4.pth"):
        checkpoint.verify(tmp_path / "async" / name)
        for file in sorted((tmp_path / "sync" / name).iterdir()):
            if file.name not in ("manifest.json", "state.json", "config.py"):  # times, and this setting
                assert (tmp_path / "async" / name / file.name).read_bytes() == file.read_bytes(), file.name
    shutil.rmtree(tmp_path / "async" / "iter_4.pth")
    resumed = small_run(tmp_path / "async", *place, resume="auto", **settings, async_save=True)
    assert scalars(resumed)[-2:] == scalars(tmp_path / "sync")[-2:]


def test_a_save_that_would_not_fit_is_not_begun(tmp_path, place, monkeypatch):
    small_run(tmp_path, *place, max_steps=1, save_steps=1)
    size = sum(f.stat().st_size for f in (tmp_path / "iter_1.pth").iterdir() if f.name != "manifest.json")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(size, 0, int(size * 1.19)))
    with pytest.raises(EnvironmentFault, match="Make room, then run the same command with --resume auto"):
        checkpoint.require_room(tmp_path / "iter_2.pth")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(size, 0, int(size * 1.21)))
    checkpoint.require_room(tmp_path / "iter_2.pth")

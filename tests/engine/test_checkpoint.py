"""Checkpoint folders: whole or not there, verified, and the states inside them."""

from __future__ import annotations

import json
import os
import random
import stat
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medtune.engine import checkpoint
from medtune.errors import ModelError, UsageError


def write_two(folder):
    (folder / "a.txt").write_text("a" * 100)
    (folder / "inner").mkdir()
    (folder / "inner" / "b.bin").write_bytes(bytes(range(256)))


def saved(work_dir, name, step=None):
    def write(folder):
        write_two(folder)
        if step is not None:
            (folder / "state.json").write_text(json.dumps({"progress": {"step": step}}))

    checkpoint.write_folder(work_dir / name, write)
    return work_dir / name


def names(folder):
    return sorted(item.name for item in folder.iterdir())


def test_a_written_folder_is_whole_private_and_verifies(tmp_path):
    folder = saved(tmp_path, "iter_1.pth")
    assert names(tmp_path) == ["iter_1.pth"]
    assert names(folder) == ["a.txt", "inner", "manifest.json"]
    checkpoint.verify(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in folder.rglob("*") if f.is_file()} == {0o600}


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_fault_in_the_middle_of_a_save_leaves_nothing_and_the_old_one_as_it_was(tmp_path, fault):
    saved(tmp_path, "iter_1.pth")

    def half(folder):
        write_two(folder)
        raise fault

    for name in ("iter_1.pth", "iter_2.pth"):
        with pytest.raises(type(fault)):
            checkpoint.write_folder(tmp_path / name, half)
    assert names(tmp_path) == ["iter_1.pth"]
    checkpoint.verify(tmp_path / "iter_1.pth")


@pytest.mark.parametrize("moment", ["write", "write_manifest", "fsync_tree"])
def test_a_kill_in_the_middle_of_a_save_leaves_no_folder_that_loads(tmp_path, moment):
    """The process ends at once, without any cleaning up, as by kill -9."""
    saved(tmp_path, "iter_1.pth", step=1)
    process = get_context("fork").Process(target=_killed_save, args=(tmp_path / "iter_2.pth", moment))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert checkpoint.find_checkpoints(tmp_path) == [tmp_path / "iter_1.pth"]
    leftovers = [name for name in names(tmp_path) if name != "iter_1.pth"]
    assert leftovers and all(name.startswith(".tmp-") for name in leftovers)
    checkpoint.clear_leftovers(tmp_path)
    assert names(tmp_path) == ["iter_1.pth"]


def _killed_save(folder, moment):
    def write(temporary):
        write_two(temporary)
        if moment == "write":
            os._exit(9)

    if moment != "write":
        setattr(checkpoint, moment, lambda *_: os._exit(9))
    checkpoint.write_folder(folder, write)


def test_a_kill_while_one_folder_takes_anothers_place_loses_neither(tmp_path):
    """Between the two renames the old checkpoint has another name; the next run gives it its own back."""
    folder = saved(tmp_path, "iter_1.pth", step=1)
    folder.rename(tmp_path / ".old-iter_1.pth-4711")
    checkpoint.clear_leftovers(tmp_path)
    assert names(tmp_path) == ["iter_1.pth"]
    checkpoint.verify(folder)
    saved(tmp_path, ".old-iter_1.pth-4711")  # after both renames, before the old one is gone
    checkpoint.clear_leftovers(tmp_path)
    assert names(tmp_path) == ["iter_1.pth"]
    checkpoint.verify(folder)


def test_a_folder_of_the_same_name_is_replaced(tmp_path):
    saved(tmp_path, "iter_1.pth", step=1)
    saved(tmp_path, "iter_1.pth", step=2)
    assert names(tmp_path) == ["iter_1.pth"]
    assert json.loads((tmp_path / "iter_1.pth" / "state.json").read_text())["progress"]["step"] == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest", "no manifest"])
def test_every_damage_is_found_and_named(tmp_path, damage):
    folder = saved(tmp_path, "iter_1.pth")
    file = folder / "inner" / "b.bin"
    if damage == "flip":
        raw = bytearray(file.read_bytes())
        raw[100] ^= 1
        file.write_bytes(raw)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "remove":
        file.unlink()
    elif damage == "manifest":
        file = folder / "manifest.json"
        file.write_text(file.read_text()[:-20])
    else:
        file = folder
        (folder / "manifest.json").unlink()
    with pytest.raises(ModelError) as raised:
        checkpoint.verify(folder)
    assert str(raised.value).startswith(f"{file}: ")


def test_checkpoints_are_found_newest_first_by_step_and_not_by_name_or_time(tmp_path):
    for name, step in (("iter_100.pth", 100), ("epoch_2.pth", 90), ("iter_9.pth", 9), ("epoch_10.pth", 450)):
        saved(tmp_path, name, step)
    saved(tmp_path, "iter_7.pth.bak", 999)
    (tmp_path / "iter_8.pth").write_text("a file")
    found = [f.name for f in checkpoint.find_checkpoints(tmp_path)]
    assert found == ["epoch_10.pth", "iter_100.pth", "epoch_2.pth", "iter_9.pth"]
    assert checkpoint.find_checkpoints(tmp_path / "nowhere") == []


def test_the_newest_valid_one_is_taken_and_each_broken_one_before_it_named(tmp_path):
    for step in (1, 2, 3):
        saved(tmp_path, f"iter_{step}.pth", step)
    (tmp_path / "iter_3.pth" / "a.txt").write_text("b" * 100)
    (tmp_path / "iter_2.pth" / "a.txt").unlink()
    warnings: list[str] = []
    assert checkpoint.newest_valid(tmp_path, warnings.append) == tmp_path / "iter_1.pth"
    assert ["iter_3.pth" in warnings[0], "iter_2.pth" in warnings[1], len(warnings)] == [True, True, 2]
    (tmp_path / "iter_1.pth" / "manifest.json").unlink()
    assert checkpoint.newest_valid(tmp_path, warnings.append) is None


def test_last_checkpoint_names_it_relatively_so_that_the_run_can_be_moved(tmp_path):
    checkpoint.point_last_to(saved(tmp_path, "iter_1.pth"))
    checkpoint.point_last_to(saved(tmp_path, "iter_2.pth"))
    assert (tmp_path / "last_checkpoint").read_text() == "iter_2.pth\n"
    assert names(tmp_path) == ["iter_1.pth", "iter_2.pth", "last_checkpoint"]


def test_a_run_folder_has_one_writer(tmp_path):
    refused = pytest.raises(UsageError, match="another training writes there")
    with checkpoint.lock(tmp_path / "run"), refused, checkpoint.lock(tmp_path / "run"):
        pass
    with checkpoint.lock(tmp_path / "run"):  # free again
        pass


@pytest.mark.parametrize("kind", ["AdamW", "SGD", "Adafactor", "RMSprop"])
def test_an_optimizer_comes_back_with_every_bit_of_its_state(tmp_path, kind):
    def make():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2, bias=False))
        options = {"SGD": {"momentum": 0.9}}.get(kind, {})
        return model, getattr(torch.optim, kind)(model.parameters(), lr=0.01, **options)

    def train(model, optimizer, steps):
        x = torch.ones(3, 4)
        for _ in range(steps):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()

    (model, optimizer), (other, fresh) = make(), make()
    train(model, optimizer, 3)
    tensors, plain = checkpoint.optimizer_tensors(optimizer, {id(p): n for n, p in model.named_parameters()})
    assert all(any(key.endswith(f".{n}") for n, _ in model.named_parameters()) for key in tensors)
    other.load_state_dict(model.state_dict())
    save_file(tensors, tmp_path / "o.safetensors")
    checkpoint.load_optimizer(fresh, load_file(tmp_path / "o.safetensors"), json.loads(json.dumps(plain)))
    train(model, optimizer, 3)
    train(other, fresh, 3)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


def test_random_generators_continue_exactly(tmp_path):
    def draw():
        return random.random(), random.gauss(0, 1), np.random.randn(3).tolist(), torch.randn(3).tolist()

    draw()  # odd counts of Gaussian draws leave a second value cached
    checkpoint.save_random_states(tmp_path, [checkpoint.random_state()])
    wanted = [draw() for _ in range(3)]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    checkpoint.load_random_state(tmp_path / "rank_00000.safetensors")
    assert [draw() for _ in range(3)] == wanted

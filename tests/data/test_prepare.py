"""Preparing in parallel: the same data as in one process, kept by content, whole after any kill, faults told alike."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import run_cli

from medtune.data import cache, prepare
from medtune.data.pipeline import build_dataset
from medtune.data.readers import read_data
from medtune.data.store import open_rows
from medtune.errors import DataError, EnvironmentFault

ROWS, PER_SHARD = 60, 8


@pytest.fixture(autouse=True)
def small_shards(monkeypatch, tmp_path):
    """Sixty rows are many here, and eight a shard; every test has a cache of its own."""
    monkeypatch.setattr(prepare, "SMALL", 10)
    monkeypatch.setattr(prepare, "ROWS_PER_SHARD", PER_SHARD)
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path / "cache"))


def turn(i: int) -> dict[str, str]:
    return {"question": f"Question {i % 50}?", "answer": "" if i % 19 == 7 else "twice a day " * (1 + i % 9)}


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "rows.jsonl", [turn(i) for i in range(ROWS)])


def write(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def build(file, tokenizer, num_proc=2, **settings):
    settings = {"drop_empty": True, "seed": 3, "max_length": 64, **settings}
    return build_dataset(read_data(str(file)), tokenizer, num_proc=num_proc, **settings)


def same(one, other) -> bool:
    return one.fingerprint() == other.fingerprint() and one.report == other.report


def kept(tmp_path) -> list[Path]:
    return sorted((tmp_path / "cache" / "prepared").glob("*[0-9a-f]"))


def pids_of_children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


@pytest.mark.parametrize("num_proc", [1, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"overflow": "split", "max_length": 20, "pack_to_max_length": False},
        {"val_ratio": 0.3, "part": "val"},
        {"max_dataset_length": 17, "overflow": "truncate", "max_length": 30},
    ],
    ids=str,
)
def test_processes_give_what_one_gives_in_memory(file, tmp_path, tiny_tokenizer, num_proc, settings):
    alone = build(file, tiny_tokenizer, data_cache=False, **settings)
    assert alone.folder is None and not kept(tmp_path)
    helped = build(file, tiny_tokenizer, num_proc, **settings)
    assert same(alone, helped)
    assert kept(tmp_path) == [helped.folder]
    assert isinstance(helped.samples.rows.input_ids, np.memmap)
    assert [alone.samples[i]["labels"].tolist() for i in range(5)] == [
        helped.samples[i]["labels"].tolist() for i in range(5)
    ]


@pytest.mark.parametrize("count", [11, 2 * PER_SHARD, 3 * PER_SHARD, 3 * PER_SHARD + 1])
def test_no_row_is_lost_where_shards_end(tmp_path, tiny_tokenizer, count):
    file = write(tmp_path / "rows.jsonl", [turn(i) for i in range(count)])
    data = build(file, tiny_tokenizer, 3)
    assert data.report.num_rows == count
    assert same(data, build(file, tiny_tokenizer, data_cache=False))


def test_what_is_kept_is_not_encoded_again_whatever_is_selected(file, tmp_path, tiny_tokenizer, monkeypatch):
    first = build(file, tiny_tokenizer)
    monkeypatch.setattr(prepare, "_make", lambda *_: pytest.fail("encoded again"))
    assert same(first, build(file, tiny_tokenizer))
    for settings in ({"max_length": 30, "overflow": "split"}, {"val_ratio": 0.5}, {"seed": 9}, {"drop_empty": True}):
        assert build(file, tiny_tokenizer, **settings).folder == first.folder


def test_other_content_is_another_key(file, tmp_path, tiny_tokenizer, monkeypatch):
    folders = [build(file, tiny_tokenizer).folder]
    settings = [{"system": "Be brief."}, {"prompt_template": "qwen_chat"}, {"train_on": "all"}]
    settings += [{"placeholders": {"name": "M"}}, {"dataset_map_fn": "question_answer"}]
    folders += [build(file, tiny_tokenizer, **other).folder for other in settings]
    write(file, [turn(i) for i in range(ROWS - 1)] + [turn(3)])
    folders.append(build(file, tiny_tokenizer).folder)
    monkeypatch.setattr(cache, "_code_version", lambda: {"medtune.data": "another"})
    folders.append(build(file, tiny_tokenizer).folder)
    assert None not in folders and len(set(folders)) == len(folders)


def test_another_tokenizer_is_another_key(tiny_tokenizer, tiny_model_path):
    from tokenizers.normalizers import Lowercase
    from transformers import AutoTokenizer

    def identity(change=lambda tokenizer: None):
        tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
        change(tokenizer)
        return cache.tokenizer_identity(tokenizer)

    def lowercase(tokenizer):
        tokenizer.backend_tokenizer.normalizer = Lowercase()

    assert identity() == cache.tokenizer_identity(tiny_tokenizer)
    assert len({identity(), identity(lowercase), identity(lambda tokenizer: tokenizer.add_tokens(["<ward>"]))}) == 3


def test_a_users_function_is_not_kept_and_gives_the_same(file, tmp_path, tiny_tokenizer):
    def mine(row):
        return {"conversation": [{"input": row["question"], "output": row["answer"]}]}

    data = build(file, tiny_tokenizer, dataset_map_fn=mine)
    assert data.folder is None and not kept(tmp_path)
    assert not list((tmp_path / "cache" / "prepared").iterdir())
    assert data.fingerprint() == build(file, tiny_tokenizer).fingerprint()


def test_rows_of_an_iterator_are_read_once(tmp_path, tiny_tokenizer, file):
    data = build_dataset(iter([turn(i) for i in range(ROWS)]), tiny_tokenizer, 64, drop_empty=True, seed=3)
    assert data.folder is None and not kept(tmp_path)
    assert data.fingerprint() == build(file, tiny_tokenizer).fingerprint()


def test_the_folder_is_private(file, tmp_path, tiny_tokenizer):
    before = os.umask(0o022)
    try:
        folder = build(file, tiny_tokenizer).folder
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {0o600}
    folders = (folder, folder.parent, folder.parent.parent)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("num_proc", [1, 2, 3])
@pytest.mark.parametrize("broken", [[13], [38, 44], [59], [12, 13]])
def test_the_first_broken_row_is_told_as_without_processes(tmp_path, tiny_tokenizer, num_proc, broken):
    rows = [{"question": 5, "answer": "a"} if i in broken else turn(i) for i in range(ROWS)]
    file = write(tmp_path / "rows.jsonl", rows)
    told = []
    for settings in ({"data_cache": False}, {"num_proc": num_proc}):
        with pytest.raises(DataError) as raised:
            build(file, tiny_tokenizer, **settings)
        told.append(str(raised.value))
    assert told[0] == told[1]
    assert f"rows.jsonl:{broken[0] + 1}" in told[0]
    assert not kept(tmp_path) and not multiprocessing.active_children()


def test_a_file_that_breaks_off_is_told_as_without_processes(file, tmp_path, tiny_tokenizer):
    with file.open("a") as stream:
        stream.write('{"question": "a')
    told = []
    for settings in ({"data_cache": False}, {}):
        with pytest.raises(DataError) as raised:
            build(file, tiny_tokenizer, **settings)
        told.append(str(raised.value))
    assert told[0] == told[1] and "rows.jsonl:61" in told[0]


def test_an_unexpected_fault_quotes_no_row(file, tiny_tokenizer, monkeypatch):
    def fail(*_):
        raise ValueError("Question 12?")

    monkeypatch.setattr(prepare, "to_conversation", fail)
    with pytest.raises(Exception, match=r"ValueError at test_prepare\.py:\d+") as raised:
        build(file, tiny_tokenizer)
    assert "Question" not in str(raised.value)


def test_an_empty_answer_is_a_fault_unless_it_is_to_be_dropped(file, tiny_tokenizer):
    with pytest.raises(DataError, match=r"rows\.jsonl:8: the answer is empty \(3 of 60 rows\)"):
        build(file, tiny_tokenizer, drop_empty=False)


# ---------------------------------------------------------------- kills


def killed_after(monkeypatch, tmp_path, count: int) -> None:
    """The process that begins the shard after `count` others is killed in it."""
    begun = tmp_path / "begun"
    begun.mkdir(exist_ok=True)
    write_rows = prepare.write_rows

    def writing(folder, batches):
        (begun / folder.name).touch()
        if len(list(begun.iterdir())) > count:
            (folder / "lengths").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        return write_rows(folder, batches)

    monkeypatch.setattr(prepare, "write_rows", writing)


@pytest.mark.parametrize("count", [0, 3, 7])
def test_a_killed_process_is_told_and_the_next_try_goes_on(file, tmp_path, tiny_tokenizer, monkeypatch, count):
    with monkeypatch.context() as patch:
        killed_after(patch, tmp_path, count)
        with pytest.raises(EnvironmentFault, match="-9"):
            build(file, tiny_tokenizer)
    assert not kept(tmp_path) and not multiprocessing.active_children()
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cache/prepared/*.partial/shards/*[0-9]")}
    assert len(done) <= count
    used = {}

    def joining(shards, into):
        used.update({shard: shard.stat().st_mtime_ns for shard in shards})
        join_folders(shards, into)

    join_folders = prepare.join_folders
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "join_folders", joining)
        resumed = build(file, tiny_tokenizer)
    assert len(used) == 8 and done.items() <= used.items()
    assert same(resumed, build(file, tiny_tokenizer, data_cache=False))


@pytest.mark.parametrize("step", ["join_folders", "write_json", "fsync"])
def test_stopped_between_the_shards_and_the_end_it_goes_on(file, tmp_path, tiny_tokenizer, monkeypatch, step):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare, step, stop)
        with pytest.raises(KeyboardInterrupt):
            build(file, tiny_tokenizer)
    assert not kept(tmp_path)
    assert same(build(file, tiny_tokenizer), build(file, tiny_tokenizer, data_cache=False))


def test_a_shard_that_a_power_cut_left_short_is_made_anew(file, tmp_path, tiny_tokenizer, monkeypatch):
    with monkeypatch.context() as patch:
        killed_after(patch, tmp_path, 4)
        with pytest.raises(EnvironmentFault):
            build(file, tiny_tokenizer, 1)
    shard = min(tmp_path.glob("cache/prepared/*.partial/shards/*[0-9]"))
    (shard / "trained").write_bytes(b"")
    assert same(build(file, tiny_tokenizer), build(file, tiny_tokenizer, data_cache=False))


def test_ctrl_c_ends_the_processes(file, tiny_tokenizer, monkeypatch):
    def interrupted(_):
        assert len(pids_of_children()) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "wait", interrupted)
    monkeypatch.setattr(prepare, "write_rows", lambda *_: time.sleep(60))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build(file, tiny_tokenizer)
    assert time.monotonic() - began < 20
    assert not multiprocessing.active_children()


def in_a_process(function) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    return process


@pytest.mark.slow
def test_killed_at_any_moment_the_next_try_gives_the_same(file, tmp_path, tiny_tokenizer, monkeypatch):
    alone = build(file, tiny_tokenizer, data_cache=False)
    began = time.monotonic()
    build(file, tiny_tokenizer, overwrite_cache=True)
    seconds = time.monotonic() - began
    for i in range(12):
        monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path / f"cache{i}"))
        process = in_a_process(lambda: build(file, tiny_tokenizer))
        time.sleep(seconds * (i + 1) / 10)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert same(build(file, tiny_tokenizer), alone)


# ---------------------------------------------------------------- several at once


def counted_shards(monkeypatch, tmp_path, seconds: float = 0.0) -> Path:
    """Every shard that any process writes leaves a file here."""
    folder = tmp_path / "written"
    folder.mkdir()
    write_rows = prepare.write_rows

    def writing(part, batches):
        (folder / f"{part.name}.{os.getpid()}.{time.monotonic_ns()}").touch()
        time.sleep(seconds)
        return write_rows(part, batches)

    monkeypatch.setattr(prepare, "write_rows", writing)
    return folder


def test_of_two_that_need_the_same_one_prepares_and_the_other_waits(file, tmp_path, tiny_tokenizer, monkeypatch):
    written = counted_shards(monkeypatch, tmp_path, 0.05)
    other = in_a_process(lambda: build(file, tiny_tokenizer))
    mine = build(file, tiny_tokenizer)
    other.join()
    assert other.exitcode == 0
    names = [path.name.partition(".")[0] for path in written.iterdir()]
    assert sorted(names) == [f"{i:08d}" for i in range(8)]
    assert same(mine, build(file, tiny_tokenizer, data_cache=False))


def test_who_waits_notices_that_the_preparing_process_died(file, tmp_path, tiny_tokenizer, monkeypatch):
    written = counted_shards(monkeypatch, tmp_path, 0.2)
    other = in_a_process(lambda: build(file, tiny_tokenizer, 1))
    while len(list(written.iterdir())) < 2:
        time.sleep(0.01)
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    assert same(build(file, tiny_tokenizer), build(file, tiny_tokenizer, data_cache=False))
    assert len(list(written.iterdir())) <= 8 + 1  # the shard it died in is done twice, the others once


def test_overwrite_cache_redoes_what_is_older_than_this_process(file, tiny_tokenizer, monkeypatch):
    folder = build(file, tiny_tokenizer).folder
    inode = folder.stat().st_ino
    assert build(file, tiny_tokenizer, overwrite_cache=True).folder.stat().st_ino == inode
    monkeypatch.setattr(prepare, "STARTED", time.time() + 5)
    assert build(file, tiny_tokenizer, overwrite_cache=True).folder.stat().st_ino != inode


def test_a_damaged_cache_is_made_anew(file, tiny_tokenizer):
    first = build(file, tiny_tokenizer)
    fingerprint = first.fingerprint()
    (first.folder / "input_ids").write_bytes(b"short")
    assert build(file, tiny_tokenizer).fingerprint() == fingerprint
    assert len(open_rows(first.folder)) == ROWS


# ---------------------------------------------------------------- the command


def test_the_command_prints_the_report_and_trains_from_the_same_folder(tmp_path, tiny_model_path):
    file = write(tmp_path / "rows.jsonl", [{"question": f"Q{i}?", "answer": "a b"} for i in range(5000)])
    words = ["data", "prepare", "sft", f"data_path={file}", "max_length=64", "val_ratio=0.1"]
    done = run_cli(*words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["train_dataset"]["num_rows"] == told["val_dataset"]["num_rows"] == 5000
    assert told["train_dataset"]["folder"] == told["val_dataset"]["folder"] == str(kept(tmp_path)[0])
    again = run_cli(*words, cwd=tmp_path)
    assert "rows 5000, samples 4500" in again.stdout and str(kept(tmp_path)[0]) in again.stdout
    assert not again.stderr


def test_nothing_below_the_batches_imports_torch():
    code = "import sys, medtune.data.pipeline, medtune.data.sampler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

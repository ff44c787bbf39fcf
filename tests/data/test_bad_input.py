"""A slice of `benchmarks/bad_input.py`: a file of each class of defect by the data commands, and the sound files."""

from __future__ import annotations

import bad_input_run
import pytest
from bad_input_run import Ran, campaign, faults_of
from defective_containers import clean_files
from defective_files import CANARY, CLASSES, DefectClass, Defective

HEAVY = ("gz_bomb", "zip_bomb", "huge_cell")
QUICK = [name for name in CLASSES if name not in HEAVY]


def without_training(kind: DefectClass) -> DefectClass:
    return kind._replace(codes={command: code for command, code in kind.codes.items() if command != "train"})


def faults(kind: DefectClass, seed: int, folder) -> list[str]:
    return [f"{name}: {fault}" for name, _, wrong in campaign(kind, seed, folder / kind.name) for fault in wrong]


@pytest.mark.parametrize("name", QUICK)
def test_a_defective_file_is_refused_by_the_data_commands(name, tmp_path):
    assert faults(without_training(CLASSES[name]), 100, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_a_defective_file_is_refused_by_training_too(name, tmp_path):
    assert faults(CLASSES[name], 200, tmp_path) == []


def test_sound_files_raise_no_alarm(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    commands = bad_input_run.commands
    monkeypatch.setattr(
        bad_input_run, "commands", lambda *args: {k: v for k, v in commands(*args).items() if k != "train"}
    )
    clean = clean_files(tmp_path)
    assert len(clean) == 20
    found = [line for file, words in clean.items() for line in bad_input_run.alarms(file, words, tmp_path / "results")]
    assert found == []


@pytest.mark.slow
def test_sound_files_raise_no_alarm_in_training(tmp_path):
    (tmp_path / "results").mkdir()
    clean = clean_files(tmp_path)
    assert [
        line for file, words in clean.items() for line in bad_input_run.alarms(file, words, tmp_path / "results")
    ] == []


def test_there_are_forty_classes_and_each_exception_has_its_reason():
    assert len(CLASSES) >= 40
    for kind in CLASSES.values():
        assert bool(kind.why) == (kind.codes != {"check": 2, "convert": 2, "train": 2}), kind.name


def test_the_campaign_sees_what_must_not_be(tmp_path):
    made = Defective(tmp_path / "a.jsonl", "a.jsonl:3")
    kind = CLASSES["trailing_comma"]
    assert faults_of(Ran([], 2, "", "medtune: a.jsonl:3: broken.\n", 0.1), "train", made, kind, tmp_path) == []
    for code, err in (
        (0, "medtune: a.jsonl:3: broken.\n"),
        (2, "medtune: a.jsonl:31: broken.\n"),
        (2, f"medtune: a.jsonl:3: broken: {CANARY}.\n"),
        (2, "medtune: a.jsonl:3: broken.\nmore\n"),
        (2, "Traceback a.jsonl:3\n"),
        (2, ""),
    ):
        assert faults_of(Ran([], code, "", err, 0.1), "train", made, kind, tmp_path), err
    (tmp_path / "out.jsonl").touch()
    assert faults_of(Ran([], 2, "", "medtune: a.jsonl:3: broken.\n", 0.1), "train", made, kind, tmp_path)

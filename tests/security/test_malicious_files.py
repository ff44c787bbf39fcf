"""Hostile files, opened by every command that opens such a file, under an audit hook: nothing runs, nothing leaks.

A slice of the artefacts; `benchmarks/hostile.py` runs them all.
"""

from __future__ import annotations

from pathlib import Path

import hostile
import hostile_caches  # noqa: F401  (registers its artefacts)
import hostile_checkpoints  # noqa: F401
import hostile_containers  # noqa: F401
import hostile_data  # noqa: F401
import hostile_files  # noqa: F401
import hostile_imports  # noqa: F401
import hostile_migrations  # noqa: F401
import hostile_models  # noqa: F401
import hostile_registries  # noqa: F401
import hostile_run
import pytest

from medtune.cli import COMMANDS

pytestmark = pytest.mark.slow

FAST = [artefact for artefact in hostile.REGISTRY.values() if artefact.fast]
EVERY = 5  # of so many commands on an artefact, one is run here; the next artefact's begin with another


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return hostile.make_world(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def outcomes(world):
    listed = hostile.make_jobs(world, FAST)
    by_artefact = {one.name: [job for job in listed if job.artefact == one.name] for one in FAST}
    chosen = [job for i, jobs in enumerate(by_artefact.values()) for job in jobs[i % min(EVERY, len(jobs)) :: EVERY]]
    return hostile_run.run_jobs(world, chosen)


@pytest.mark.parametrize("name", [artefact.name for artefact in FAST])
def test_nothing_of_a_hostile_file_runs_and_its_refusal_is_one_line(name, outcomes):
    mine = [outcome for outcome in outcomes if outcome.artefact == name]
    assert mine
    assert {" ".join(o.words): (o.faults(), o.err[-800:]) for o in mine if o.faults()} == {}


def test_nothing_was_written_outside_the_run_folder(outcomes, world):
    assert hostile_run.leaks(world) == []


def test_most_hostile_files_are_refused(outcomes):
    """If every command ended with 0 they would not have been opened; some are data, which may hold any text."""
    refused = {outcome.artefact for outcome in outcomes if outcome.code == 2}
    assert len(refused) > 0.6 * len([one for one in FAST if one.kind != "cache"])  # a cache is made anew


def test_the_collection_is_large_and_spans_every_kind():
    kinds = {artefact.kind for artefact in hostile.REGISTRY.values()}
    opened = {"old", "checkpoint", "work_dir", "adapter", "model", "data", "registry", "cache", "config", "foreign"}
    assert kinds == {*opened, "override"}
    assert len(hostile.REGISTRY) >= 400 and {artefact.kind for artefact in FAST} == kinds


NOT_OPENING = {"list-cfg", "list-dataset-format", "data catalog", "doctor", "version"}  # they are given no file


def test_every_command_is_run_on_hostile_files(world):
    first = {one.kind: one for one in FAST if one.kind != "cache"}  # whose commands train, as others' do
    jobs = [job for one in first.values() for job in hostile.jobs(world, one, "x")]
    run = {name for name in COMMANDS for job in jobs if " ".join(job.words).startswith(f"{name} ")}
    assert set(COMMANDS) - run == NOT_OPENING


SEEN = {
    "runs a shell": ("os.system('true')", "os.system"),
    "starts a process": ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
    "opens a socket": ("import socket; socket.socket()", "socket.__new__"),
    "writes elsewhere": ("open({canary!r} + '/x', 'w')", "open"),
    "makes a folder elsewhere": ("os.mkdir({canary!r} + '/y')", "os.mkdir"),
    "unpickles a class": ("import pickle; pickle.loads(pickle.dumps(os.mkdir))", "pickle.find_class"),
    "runs hostile text": ("exec('MEDTUNE_CANARY = 1')", "exec"),
    "imports a module beside a file": ("import sys; sys.path.insert(0, {folder!r}); import beside", "exec"),
}


@pytest.fixture(scope="module")
def seen(world):
    """Events of configs, which are code, that do what no file may."""
    folder = world.artefacts / "controls"
    folder.mkdir()
    (folder / "beside.py").write_text("x = 1\n")
    jobs = []
    for number, (name, (text, _)) in enumerate(SEEN.items()):
        config = Path(world.root / f"control_{number}.py")
        lines = text.format(canary=str(world.canary), folder=str(folder)).replace("; ", "\n")
        config.write_text(f"import os\n{lines}\nraise ValueError\n")
        jobs.append(hostile.Job(name, ["train", str(config)]))
    found = {outcome.artefact: outcome for outcome in hostile_run.run_jobs(world, jobs)}
    for path in world.canary.iterdir():
        path.rmdir() if path.is_dir() else path.unlink()
    return found


@pytest.mark.parametrize("name", SEEN)
def test_the_audit_hook_sees_what_a_program_does(name, seen):
    """The control: without it, an empty list of events would prove nothing."""
    assert any(event.startswith(SEEN[name][1]) for event in seen[name].events), seen[name]

"""The limit on checkpoints under saves, kills at any file operation, and restarts: never too few, never too many."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from medtune.engine import checkpoint
from medtune.errors import ModelError

KILLED = 9
OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod")
RENAMES = st.tuples(st.just(("os.rename",)), st.integers(1, 5))
PLANTED = (".tmp-iter_1.pth-1", ".old-iter_1.pth-1", "iter_999.pth", "iter_5.pth", "last_checkpoint", ".lock", "mine")


def digest(folder: Path) -> str:
    """Of all names and contents below a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b""))
    return found.hexdigest()


class Run(RuleBasedStateMachine):
    """One run's folder, its processes, and a folder of somebody else that links in the run's folder point to."""

    @initialize(limit=st.integers(1, 4))
    def start(self, limit):
        self.top = Path(tempfile.mkdtemp(prefix="medtune-keep-"))
        self.outside, self.run = self.top / "outside", self.top / "run"
        (self.outside / "folder").mkdir(parents=True)
        (self.outside / "folder" / "manifest.json").write_text("{}")
        (self.outside / "file").write_text("of somebody else")
        self.run.mkdir()
        (self.run / "notes.txt").write_text("mine")
        self.untouched = digest(self.outside)
        self.limit, self.step, self.saved = limit, 0, -1

    def teardown(self):
        shutil.rmtree(getattr(self, "top", "/nonexistent"), ignore_errors=True)

    def save(self):
        folder = self.run / f"iter_{self.step}.pth"

        def write(temporary):
            (temporary / "state.json").write_text(json.dumps({"progress": {"step": self.step}}))
            (temporary / "weights").write_bytes(os.urandom(64))

        checkpoint.write_folder(folder, write)
        checkpoint.point_last_to(folder)
        checkpoint.remove_surplus(folder, self.limit)

    def restart(self):
        with checkpoint.lock(self.run):
            checkpoint.clear_leftovers(self.run)
            found = checkpoint.newest_valid(self.run, lambda _: None)
            if found:
                checkpoint.remove_surplus(found, self.limit)
        self.step = int(found.name[5:-4]) if found else 0

    @rule(steps=st.integers(0, 3))
    def train_and_save(self, steps):
        self.step += steps
        self.save()
        self.saved = self.step

    @rule(steps=st.integers(0, 2), at=st.one_of(st.tuples(st.just(OPERATIONS), st.integers(1, 30)), RENAMES))
    def train_and_be_killed_in_a_save(self, steps, at):
        """The process ends before its n-th file operation, or rename, as by kill -9; then another one starts."""
        self.step += steps
        pid = os.fork()
        if not pid:
            events, number = at
            left = [number]

            def hook(event, _):
                left[0] -= event in events
                if left[0] == 0:
                    os._exit(KILLED)

            sys.addaudithook(hook)
            try:
                self.save()
            finally:
                os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, KILLED)
        if code == 0:
            self.saved = self.step
        self.restart()

    @rule()
    def restart_without_a_kill(self):
        self.restart()

    @rule(name=st.sampled_from(PLANTED), at=st.sampled_from(["folder", "file", "nothing"]))
    def plant_a_link(self, name, at):
        if name == "last_checkpoint":
            (self.run / name).unlink(missing_ok=True)
        if not os.path.lexists(self.run / name):
            (self.run / name).symlink_to(self.outside / at)

    @precondition(lambda self: self.saved >= 0)
    @invariant()
    def a_checkpoint_verifies_and_it_is_the_newest(self):
        whole = []
        for folder in self.folders():
            try:
                checkpoint.verify(folder)
                whole.append(int(folder.name.removeprefix(".old-")[5:].partition(".")[0]))
            except ModelError:
                assert folder.name.startswith((".tmp-", ".old-")), f"{folder} does not verify"
        assert max(whole, default=-1) >= self.saved

    @precondition(lambda self: hasattr(self, "run"))
    @invariant()
    def there_are_at_most_limit_and_one(self):
        assert len(checkpoint.find_checkpoints(self.run)) <= self.limit + 1

    @precondition(lambda self: hasattr(self, "run"))
    @invariant()
    def nothing_else_is_touched(self):
        assert digest(self.outside) == self.untouched
        assert (self.run / "notes.txt").read_text() == "mine"

    def folders(self):
        return [f for f in self.run.iterdir() if ".pth" in f.name and f.is_dir() and not f.is_symlink()]


@pytest.mark.slow
def test_no_order_of_saves_kills_and_restarts_breaks_the_limit_or_loses_the_newest():
    quiet = settings(
        max_examples=40,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Run, settings=quiet)

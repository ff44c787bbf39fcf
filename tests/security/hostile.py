"""Hostile artefacts, the commands that open them, and a process that runs those under an audit hook.

The artefacts themselves are made in `hostile_files`, `hostile_models` and `hostile_data`, each by a function of its
own. A command must end with 0 or 2, one line on a refusal, no traceback, in bounded time; the hook must have nothing
to tell.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
ROOT = TESTS.parent
CANARY = "MEDTUNE_CANARY"
SECRET = "honest/secret.txt"  # a file of the user's, to which links in artefacts lead
SECRET_TEXT = "nothing may publish this"
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
SECONDS = 20.0  # for one command; those that work take a second or two


class World(NamedTuple):
    """The folders of a campaign, and what honest things lie in it."""

    root: Path

    @property
    def artefacts(self) -> Path:
        return self.root / "artefacts"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def canary(self) -> Path:
        return self.root / CANARY

    @property
    def base(self) -> Path:
        return self.root / "honest" / "base"

    @property
    def adapter(self) -> Path:
        return self.root / "honest" / "adapter"

    @property
    def checkpoint(self) -> Path:
        return self.root / "honest" / "work" / "iter_1.pth"

    @property
    def data(self) -> Path:
        return self.root / "honest" / "train.jsonl"


class Artefact(NamedTuple):
    """A function that makes something hostile in a folder and returns what a command is given."""

    name: str
    kind: str
    make: Callable[[World, Path], Path | str]
    fast: bool
    """True if it belongs to the slice that the test suite runs."""


REGISTRY: dict[str, Artefact] = {}


def artefact(kind: str, fast: bool = False) -> Callable[[Callable[[World, Path], Path | str]], Callable[..., Any]]:
    """Register a maker under its function's name."""

    def register(make: Callable[[World, Path], Path | str]) -> Callable[..., Any]:
        assert make.__name__ not in REGISTRY
        REGISTRY[make.__name__] = Artefact(make.__name__, kind, make, fast)
        return make

    return register


class Job(NamedTuple):
    """A command line on one artefact."""

    artefact: str
    words: list[str]
    stdin: str = ""


class Outcome(NamedTuple):
    """How a command ended and what the hook saw meanwhile."""

    artefact: str
    words: list[str]
    code: int
    out: str
    err: str
    seconds: float
    events: list[str]

    def faults(self) -> list[str]:
        """What of it must not be."""
        lines = [line for line in self.err.splitlines() if line.strip() and not line.startswith("[")]
        found = list(self.events)
        if self.code not in (0, 2):
            found.append(f"exit code {self.code}")
        if self.code == 2 and len(lines) != 1:
            found.append(f"{len(lines)} lines of error")
        if "Traceback" in self.err or "panicked" in self.err:
            found.append("a traceback")
        if CONTROLS.search(self.out) or CONTROLS.search(self.err):
            found.append("control characters")
        if self.seconds > SECONDS:
            found.append(f"{self.seconds:.0f} seconds")
        return found


# ---------------------------------------------------------------- commands


def jobs(world: World, artefact: Artefact, target: Path | str) -> Iterator[Job]:
    """Every command that opens an artefact of this kind."""
    small = _small_run(world)
    new = _numbered(world.run / "out" / artefact.name)
    commands = {
        "old": lambda: [
            ["convert", "pth_to_hf", "sft", target, new()],
            [*small, "--work-dir", new(), "--resume", target],
            ["convert", "merge", world.base, target, new()],
            ["chat", world.base, "--adapter", target],
            ["chat", target],
        ],
        "checkpoint": lambda: [
            [*small, "--work-dir", new(), "--resume", target],
            ["convert", "pth_to_hf", "sft", target, new()],
            ["convert", "merge", world.base, target, new()],
            ["chat", world.base, "--adapter", target, "--max-new-tokens", "2"],
        ],
        "work_dir": lambda: [[*small, "--work-dir", target, "--resume", "auto"]],
        "adapter": lambda: [
            ["convert", "merge", world.base, target, new()],
            ["convert", "merge", world.base, target, new(), "--verify"],
            ["chat", world.base, "--adapter", target, "--max-new-tokens", "2"],
        ],
        "model": lambda: [
            ["chat", target, "--max-new-tokens", "2"],
            [*small, "--work-dir", new(), f"pretrained_model_name_or_path={target}"],
            ["log-dataset", *small[1:], f"pretrained_model_name_or_path={target}"],
            ["convert", "merge", target, world.adapter, new(), "--any-base", "--verify"],
        ],
        "data": lambda: [
            ["data", "convert", target, f"{new()}.jsonl"],
            ["data", "split", target, "--out-dir", new()],
            ["log-dataset", *small[1:], f"data_path={target}"],
            ["check-custom-dataset", *small[1:], f"data_path={target}"],
            [*small, "--work-dir", new(), f"data_path={target}"],
        ],
        "config": lambda: [
            ["train", target, "--work-dir", new(), "max_steps=1"],
            ["log-dataset", target],
            ["copy-cfg", target, new()],
            ["copy-cfg", target, new(), "--expand"],
            ["convert", "pth_to_hf", target, world.checkpoint, new()],
        ],
        "override": lambda: [[*small, "--work-dir", new(), target], ["log-dataset", *small[1:], target]],
    }
    for words in commands[artefact.kind]():
        yield Job(artefact.name, [str(word) for word in words], "What is ibuprofen?\n" if words[0] == "chat" else "")


def _numbered(prefix: Path) -> Callable[[], Path]:
    numbers = iter(range(100))
    return lambda: Path(f"{prefix}-{next(numbers)}")


def _small_run(world: World) -> list[str]:
    from helpers import words_of

    return words_of(world.base, world.data, max_steps=1, max_length=64, lora_dropout=0.0)


# ---------------------------------------------------------------- the process


def make_world(root: Path) -> World:
    """Honest data, base, adapter and checkpoint, for the hostile ones to be made from."""
    from helpers import tiny_llama_folder, write_questions

    from medtune.cli import main

    world = World(root)
    for folder in (world.artefacts, world.run, world.canary, world.base):
        folder.mkdir(parents=True)
    tiny_llama_folder(world.base)
    write_questions(world.data, count=4)
    (world.root / SECRET).write_text(SECRET_TEXT)
    assert main([*_small_run(world), "--work-dir", str(world.checkpoint.parent)]) == 0
    assert main(["convert", "pth_to_hf", "sft", str(world.checkpoint), str(world.adapter)]) == 0
    return world


def make_jobs(world: World, chosen: list[Artefact]) -> list[Job]:
    """Make the artefacts, and list the commands on each."""
    listed = []
    for one in chosen:
        folder = world.artefacts / one.name
        folder.mkdir()
        target = one.make(world, folder)
        if one.kind == "work_dir":  # training writes there, so it gets a copy of its own
            work_dir = world.run / "work" / one.name
            shutil.copytree(target, work_dir, symlinks=True)
            target = work_dir
        listed += jobs(world, one, target)
    return listed


def run_jobs(world: World, listed: list[Job]) -> list[Outcome]:
    """Run commands one after the other in an audited process; where one hangs or kills it, go on in a new one."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(listed):
        outcomes += _run_in_a_process(world, listed[len(outcomes) :])
    return outcomes


def _run_in_a_process(world: World, listed: list[Job]) -> list[Outcome]:
    work, results = world.root / "jobs.json", world.root / "results.jsonl"
    work.write_text(json.dumps(listed))
    results.write_text("")
    words = [sys.executable, str(HERE / "hostile.py"), str(work), str(results), str(world.root / "captured")]
    with (world.root / "stderr").open("w") as errors:
        process = subprocess.Popen(words, cwd=world.run, env=_environment(world, results), stdout=errors, stderr=errors)
    written, changed = 0, time.monotonic()
    while process.poll() is None:
        time.sleep(0.1)
        if results.stat().st_size != written:
            written, changed = results.stat().st_size, time.monotonic()
        if time.monotonic() - changed > SECONDS * 1.5:
            process.kill()
            process.wait()
    outcomes = [Outcome(*json.loads(line)) for line in results.read_text().splitlines()]
    if len(outcomes) < len(listed):
        job, waited = listed[len(outcomes)], time.monotonic() - changed
        said = (world.root / "stderr").read_text()[-2000:]
        outcomes.append(Outcome(job.artefact, job.words, process.returncode, "", said, waited, []))
    return outcomes


def leaks(world: World) -> list[str]:
    """What lies where nothing may: in the canary's folder, or of the user's secret in what commands wrote."""
    found = [f"{path} was made" for path in world.canary.rglob("*")]
    for file in world.run.rglob("*"):
        if file.is_file() and file.stat().st_size < 1 << 20 and SECRET_TEXT.encode() in file.read_bytes():
            found.append(f"{file} holds the user's secret")
    return found


def _environment(world: World, results: Path) -> dict[str, str]:
    site, home = world.root / "site", world.run / "home"
    for folder in (site, home):
        folder.mkdir(exist_ok=True)
    shutil.copyfile(HERE / "audit.py", site / "sitecustomize.py")
    return {
        **os.environ,
        **dict.fromkeys(("HOME", "TMPDIR", "HF_HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME"), str(home)),
        "PYTHONPATH": os.pathsep.join(map(str, (site, ROOT))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(home),
        "HF_HUB_OFFLINE": "1",
        "AUDIT_LOG": str(world.root / "audit.log"),
        "AUDIT_WRITABLE": os.pathsep.join(map(str, (world.run, results, world.root / "captured"))),
        "AUDIT_FOREIGN": str(world.artefacts),
        "AUDIT_CANARY": CANARY,
    }


def drive(work: Path, results: Path, captured: Path) -> None:
    """In the audited process: run the commands, and write down each one's outcome."""
    from medtune.cli import main

    log = Path(os.environ["AUDIT_LOG"])
    for job in map(Job._make, json.loads(work.read_text())):
        seen = log.stat().st_size
        began = time.monotonic()
        with _captured(captured, job.stdin):
            try:
                code = main(job.words)
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
            except BaseException as fault:  # what the shell would see as a traceback
                print(f"Traceback: {type(fault).__name__}: {fault}"[:2000], file=sys.stderr)
                code = 1
        out, err = (Path(f"{captured}.{n}").read_text(errors="replace") for n in (1, 2))
        events = log.read_bytes()[seen:].decode(errors="replace").splitlines()
        outcome = Outcome(job.artefact, job.words, code, out, err, time.monotonic() - began, events)
        with results.open("a") as stream:
            stream.write(json.dumps(outcome) + "\n")


@contextlib.contextmanager
def _captured(captured: Path, stdin: str) -> Iterator[None]:
    """Standard streams of a job: text in, files out, also for what libraries in C write."""
    before = sys.stdin, os.dup(1), os.dup(2)
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    for number in (1, 2):
        handle = os.open(f"{captured}.{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdin = before[0]
        for number in (1, 2):
            os.dup2(before[number], number)
            os.close(before[number])


if __name__ == "__main__":
    drive(*map(Path, sys.argv[1:]))

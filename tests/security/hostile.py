"""Hostile artefacts, and the commands that open them; `hostile_run` runs those under an audit hook.

The artefacts themselves are made in the modules `hostile_*`, each by a function of its own. A command must end with 0
or 2, one line on a refusal, no traceback, in bounded time; the hook must have nothing to tell.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
ROOT = TESTS.parent
CANARY = "MEDTUNE_CANARY"
ORIGINS = ("xtuner", "llama-factory", "medicalgpt")
ENTRY = "evil"  # name of the entry of a hostile registry
SECRET = "precious/secret.txt"  # a file of the user's, to which links in artefacts lead
SECRET_TEXT = "nothing may publish this"
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
REPORTS = (["data", "check"], ["data", "overlap"])  # may end with 2 after a report on stdout, without an error
SECONDS = 20.0  # of processor time, for one command; those that work take a second or two


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

    @property
    def many(self) -> Path:
        """More rows than are prepared in memory, so that they are kept in the preparation cache."""
        return self.root / "honest" / "many.jsonl"


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
    cache: str = ""
    """Folder of prepared data."""


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
        lines = lines[:1] if lines and lines[0].endswith("faults in the config:") else lines  # a line each
        reports = self.words[:2] in REPORTS and self.out
        if self.code == 2 and len(lines) != 1 and not (reports and not lines):
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
    small = small_run(world)
    new = _numbered(world.run / "out" / artefact.name)
    cache = _numbered(world.run / "cache" / artefact.name)
    commands = {
        "old": lambda: [
            ["convert", "pth_to_hf", "sft", target, new()],
            [*small, "--work-dir", new(), "--resume", target],
            ["test", *small[1:], "--checkpoint", target, "val_ratio=0.5"],
            ["convert", "merge", world.base, target, new()],
            ["chat", world.base, "--adapter", target],
            ["chat", target],
        ],
        "checkpoint": lambda: [
            [*small, "--work-dir", new(), "--resume", target],
            ["test", *small[1:], "--checkpoint", target, "val_ratio=0.5"],
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
            ["data", "prepare", *small[1:], f"pretrained_model_name_or_path={target}"],
            ["data", "show", world.data, "--ids", "--tokenizer", target],
            ["data", "stats", world.data, "--tokenizer", target],
            ["data", "inspect", world.data, "--no-text", "--tokenizer", target],
            ["data", "check", world.data, "--max-length", "64", "--tokenizer", target],
            ["convert", "merge", target, world.adapter, new(), "--any-base", "--verify"],
        ],
        "data": lambda: [
            ["data", "split", target, "--out-dir", new()],
            *_row_commands(world, target, new),
            ["log-dataset", *small[1:], f"data_path={target}"],
            ["check-custom-dataset", *small[1:], f"data_path={target}"],
            ["data", "prepare", *small[1:], f"data_path={target}"],
            [*small, "--work-dir", new(), f"data_path={target}"],
        ],
        "registry": lambda: [
            *([*words, "--dataset-info", target] for words in _row_commands(world, ENTRY, new)),
            ["log-dataset", *small[1:], f"data_path={ENTRY}", f"dataset_info={target}"],
            ["data", "prepare", *small[1:], f"data_path={ENTRY}", f"dataset_info={target}"],
            [*small, "--work-dir", new(), f"data_path={ENTRY}", f"dataset_info={target}"],
        ],
        "cache": lambda: [
            ["data", "prepare", *small[1:], f"data_path={world.many}"],
            ["log-dataset", *small[1:], f"data_path={world.many}"],
            [*small, "--work-dir", new(), f"data_path={world.many}"],
        ],
        "config": lambda: [
            ["train", target, "--work-dir", new(), "max_steps=1"],
            ["log-dataset", target],
            ["copy-cfg", target, new()],
            ["copy-cfg", target, new(), "--expand"],
            ["convert", "pth_to_hf", target, world.checkpoint, new()],
            ["data", "prepare", target],
            ["data", "show", "--config", target],
        ],
        "foreign": lambda: [
            ["migrate", target, made := f"{new()}.py"],
            ["migrate", target, f"{new()}.py", "--diff"],
            *(["migrate", target, f"{new()}.py", "--from", origin] for origin in ORIGINS),
            ["train", made, "--check"],  # what it wrote is a program
            ["copy-cfg", made, new(), "--expand"],
        ],
        "override": lambda: [
            [*small, "--work-dir", new(), target],
            ["log-dataset", *small[1:], target],
            ["data", "prepare", *small[1:], target],
        ],
    }
    for words in commands[artefact.kind]():
        stdin = "What is ibuprofen?\n" if words[0] == "chat" else ""
        prepared = artefact.make(world, _made(cache())) if artefact.kind == "cache" else ""
        yield Job(artefact.name, [str(word) for word in words], stdin, str(prepared))


def _row_commands(world: World, target: Path | str, new: Callable[[], Path]) -> list[list[Any]]:
    """The commands that read rows of a file, or of a name in a registry."""
    return [
        ["data", "convert", target, f"{new()}.jsonl"],
        ["data", "inspect", target],
        ["data", "check", target, "--good", f"{new()}.jsonl", "--quarantine", f"{new()}.jsonl"],
        ["data", "stats", target],
        ["data", "show", target],
        ["data", "dedupe", target, f"{new()}.jsonl", "--report", f"{new()}.jsonl"],
        ["data", "overlap", target, world.data],
        ["data", "overlap", world.data, target],
        ["data", "mix", f"{new()}.jsonl", world.data, target],
        ["data", "phi-scan", target, "--fields"],
        ["data", "redact", target, f"{new()}.jsonl"],
    ]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _numbered(prefix: Path) -> Callable[[], Path]:
    numbers = iter(range(100))
    return lambda: Path(f"{prefix}-{next(numbers)}")


def small_run(world: World) -> list[str]:
    from helpers import words_of

    return words_of(world.base, world.data, max_steps=1, max_length=64, lora_dropout=0.0)


# ---------------------------------------------------------------- the world and its artefacts


def make_world(root: Path) -> World:
    """Honest data, base, adapter and checkpoint, for the hostile ones to be made from."""
    from helpers import tiny_llama_folder, write_questions

    from medtune.cli import main

    world = World(root)
    for folder in (world.artefacts, world.run, world.canary, world.base):
        folder.mkdir(parents=True)
    tiny_llama_folder(world.base)
    write_questions(world.data, count=4)
    write_questions(world.many, count=4097)
    (world.root / SECRET).parent.mkdir()
    (world.root / SECRET).write_text(SECRET_TEXT)
    assert main([*small_run(world), "--work-dir", str(world.checkpoint.parent)]) == 0
    assert main(["convert", "pth_to_hf", "sft", str(world.checkpoint), str(world.adapter)]) == 0
    return world


def make_jobs(world: World, chosen: list[Artefact]) -> list[Job]:
    """Make the artefacts, and list the commands on each."""
    listed = []
    for one in chosen:
        folder = world.artefacts / one.name
        folder.mkdir()
        target = one.make(world, folder) if one.kind != "cache" else ""  # training writes there: one for each command
        if one.kind == "work_dir":  # training writes there, so it gets a copy of its own
            work_dir = world.run / "work" / one.name
            shutil.copytree(target, work_dir, symlinks=True)
            target = work_dir
        listed += jobs(world, one, target)
    return listed

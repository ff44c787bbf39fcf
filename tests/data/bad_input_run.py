"""Defective and sound files through the real commands; what must not be seen of one is a fault."""

from __future__ import annotations

import contextlib
import io
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import defective_containers  # noqa: F401  # enters its classes, as the next
import defective_rows  # noqa: F401
from defective_files import CANARY, DefectClass, Defective

from medtune import cli

SECONDS = 60
"""Most that one command may take."""
SLOW_OUT = 16 << 20
"""Bytes of output that nothing here has a reason for."""


class Ran(NamedTuple):
    """A command that ended."""

    words: list[str]
    code: int
    out: str
    err: str
    seconds: float


def run_here(words: list[str]) -> Ran:
    """Run a command in this process."""
    out, err, began = io.StringIO(), io.StringIO(), time.monotonic()
    handler = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(words)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 99
    except TimeoutError:
        code = 98
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
    return Ran(words, code, out.getvalue(), err.getvalue(), time.monotonic() - began)


def run_outside(words: list[str]) -> Ran:
    """Run a command in a process of its own."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "medtune", *words], capture_output=True, timeout=4 * SECONDS)
    out, err = done.stdout.decode(), done.stderr.decode()
    return Ran(words, done.returncode, out, err, time.monotonic() - began)


def _too_long(*_: Any) -> None:
    raise TimeoutError


def commands(file: Path, out: Path, to: str, words: Iterable[str]) -> dict[str, list[str]]:
    """Command -> its words."""
    words = list(words)
    settings = [f"data_path={file}"]
    if "--input-column" in words:
        settings.append(f"data_columns=dict(input={words[1]!r}, output={words[3]!r})")
    reading = [] if "--to" in words else words
    return {
        "check": ["data", "check", str(file), "--all", *reading],
        "convert": ["data", "convert", str(file), str(out), *(words if "--to" in words else [*words, "--to", to])],
        "inspect": ["data", "inspect", str(file), "--no-text", *reading],
        "train": ["train", "sft", "--check", *settings],
    }


def campaign(kind: DefectClass, seed: int, folder: Path, outside: bool = False) -> Iterator[tuple[str, Ran, list[str]]]:
    """Make one file of a class; yield each command that saw it with what must not have been."""
    folder.mkdir(parents=True)
    draw = random.Random(f"{kind.name} {seed}")
    made = kind.make(draw, folder)
    results = folder / "results"
    results.mkdir()
    for name, words in commands(made.path, results / "out.jsonl", made.to, made.words).items():
        if name != "inspect" and name not in kind.codes:
            continue
        ran = (run_outside if outside else run_here)(words)
        yield name, ran, faults_of(ran, name, made, kind, results)


def faults_of(ran: Ran, command: str, made: Defective, kind: DefectClass, results: Path) -> list[str]:
    """What is wrong with how a command ended."""
    faults = []
    wanted = kind.codes.get(command)
    if wanted is not None and ran.code != wanted:
        faults.append(f"exit code {ran.code}, wanted {wanted}")
    if wanted is None and ran.code not in (0, 2):
        faults.append(f"exit code {ran.code}")
    if "Traceback" in ran.err + ran.out or "internal fault" in ran.err:
        faults.append("a traceback, or an internal fault")
    if CANARY in ran.err or (CANARY in ran.out and command != "train"):
        faults.append("it shows text of a row")
    if wanted == 2:
        told = ran.err + ran.out
        if not re.search(re.escape(made.place) + r"(?:(?<!\d)|(?!\d))", told):
            faults.append(f"it does not name {made.place!r}")
        if command != "check" and len(ran.err.splitlines()) != 1 and "faults" not in ran.err:
            faults.append(f"{len(ran.err.splitlines())} lines on stderr")
        if not told.strip():
            faults.append("it says nothing")
        if left := sorted(path.name for path in results.iterdir()):
            faults.append(f"it left {left}")
    if wanted == 0 and command == "train" and "left out" not in ran.out and "counts it" in kind.why:
        faults.append("it does not count the row that it left out")
    if len(ran.out) > SLOW_OUT or len(ran.err) > 4000:
        faults.append(f"{len(ran.out)} characters on stdout, {len(ran.err)} on stderr")
    return faults


def alarms(file: Path, words: tuple[str, ...], results: Path) -> list[str]:
    """What a sound file raised, by any command."""
    found = []
    for name, line in commands(file, results / f"{file.name}.jsonl", "conversation", words).items():
        ran = run_here(line)
        if name == "train" and "--to" in words:  # documents are for pre-training, another stage
            continue
        if ran.code or ran.err or (name == "check" and ("note" in ran.out or "fault" in ran.out)):
            found.append(f"{name} {file.name}: {ran.code} {ran.err.strip()} {ran.out[:300]}")
    return found


def peak_mb() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

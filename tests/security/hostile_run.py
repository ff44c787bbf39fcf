"""An audited process that runs commands on hostile artefacts, and the search for what they left."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hostile import CANARY, HERE, ROOT, SECRET, SECRET_TEXT, Job, Outcome, World

HANGS = 120.0  # seconds without an outcome, after which a process is ended


def run_jobs(world: World, listed: list[Job]) -> list[Outcome]:
    """Run commands one after the other in an audited process; where one hangs or kills it, go on in a new one.

    `data prepare` hides torch from the libraries of its process, so those commands have a process of their own.
    """
    prepares = [job for job in listed if job.words[:2] == ["data", "prepare"]]
    outcomes: list[Outcome] = []
    for group in ([job for job in listed if job not in prepares], prepares):
        done = len(outcomes)
        while len(outcomes) < done + len(group):
            outcomes += _run_in_a_process(world, group[len(outcomes) - done :])
    return outcomes


def _run_in_a_process(world: World, listed: list[Job]) -> list[Outcome]:
    work, results = world.root / "jobs.json", world.root / "results.jsonl"
    work.write_text(json.dumps(listed))
    results.write_text("")
    words = [sys.executable, str(HERE / "hostile_run.py"), str(work), str(results), str(world.root / "captured")]
    with (world.root / "stderr").open("w") as errors:
        process = subprocess.Popen(words, cwd=world.run, env=_environment(world, results), stdout=errors, stderr=errors)
    written, changed = 0, time.monotonic()
    while process.poll() is None:
        time.sleep(0.1)
        if results.stat().st_size != written:
            written, changed = results.stat().st_size, time.monotonic()
        if time.monotonic() - changed > HANGS:
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
    secret = world.root / SECRET
    if [*secret.parent.iterdir()] != [secret] or secret.read_text() != SECRET_TEXT:
        found.append("the user's folder was written to, or emptied")
    for file in world.run.rglob("*"):
        given = file.is_symlink() and file.is_relative_to(world.run / "cache")  # a link that the artefact brought
        if not given and file.is_file() and file.stat().st_size < 1 << 20 and SECRET_TEXT.encode() in file.read_bytes():
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
        began = _worked()
        os.environ["MEDTUNE_CACHE"] = job.cache or str(Path(os.environ["HOME"]) / "cache")
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
        outcome = Outcome(job.artefact, job.words, code, out, err, _worked() - began, events)
        with results.open("a") as stream:
            stream.write(json.dumps(outcome) + "\n")


def _worked() -> float:
    """Seconds of processor time, of this process and those that it has waited for: the machine may have other work."""
    return sum(os.times()[:4])


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

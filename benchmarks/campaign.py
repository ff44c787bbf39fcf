"""What the campaigns share: a tiny model with data, and medtune commands in processes forked from this warm one.

A forked process runs `medtune.cli.main`, as the command does, without the seconds that imports take.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

from helpers import tiny_llama_folder, words_of, write_questions  # noqa: E402

from medtune import cli  # noqa: E402


class World(NamedTuple):
    """A tiny model and a data file in a folder for runs."""

    folder: Path
    model: Path
    data: Path

    def words(self, run: str, **settings: Any) -> list[str]:
        """The command that trains in a folder of this world, or goes on there."""
        return [*words_of(self.model, self.data, **settings), "--work-dir", str(self.folder / run), "--resume", "auto"]


@contextlib.contextmanager
def world() -> Iterator[World]:
    """A new world in a temporary folder; imports everything that training needs."""
    import medtune.configs._base_.sft

    import medtune.engine.plot
    import medtune.engine.train  # noqa: F401

    with tempfile.TemporaryDirectory(prefix="medtune-campaign-") as name:
        folder = Path(name)
        yield World(folder, tiny_llama_folder(folder / "tiny"), write_questions(folder / "questions.jsonl"))


def fork(words: list[str], before: Callable[[], None] = lambda: None) -> int:
    """Run a medtune command in a forked process, after `before()` there; its output goes to `/dev/null`.

    Returns: the process's number.
    """
    return fork_to(Path(os.devnull), words, before)


def fork_to(output: Path, words: list[str], before: Callable[[], None] = lambda: None) -> int:
    """As `fork`, with the output in a file."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        before()
        code = cli.main(words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int) -> int:
    """Exit code of a forked process; negative is the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def complete(output: Path, words: list[str], before: Callable[[], None] = lambda: None) -> None:
    """Run a command in a forked process that must end well; its output goes to a file."""
    code = wait(fork_to(output, words, before))
    if code:
        raise SystemExit(f"exit code {code}: {' '.join(words)}\n{output.read_text()[-2000:]}")


def weights(folder: Path) -> dict[str, bytes]:
    """Bytes of a checkpoint's tensors: weights, optimizer, random states."""
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))}


def curve(run: Path, names: tuple[str, ...] = ("loss", "lr", "grad_norm", "tokens")) -> dict[int, set[tuple[Any, ...]]]:
    """Step -> the different scalars that the run's processes wrote for it: one, if every repetition was exact."""
    found: dict[int, set[tuple[Any, ...]]] = {}
    for file in sorted(run.glob("*/vis_data/scalars.json")):
        for line in file.read_text().splitlines():
            with contextlib.suppress(ValueError):  # cut off by a kill
                record = json.loads(line)
                if "loss" in record:
                    found.setdefault(record["step"], set()).add(tuple(record[name] for name in names))
    return found


def leftovers(run: Path) -> list[str]:
    """Names of hidden things in a run's folder that a save puts there for a moment."""
    return sorted(f.name for f in run.iterdir() if f.name.startswith(".") and f.name != ".lock") if run.is_dir() else []


def parser(doc: str, count: int, **more: Any) -> argparse.ArgumentParser:
    """Arguments that every campaign has: how many, and from which seed."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0], **more)
    made.add_argument("--count", type=int, default=count)
    made.add_argument("--seed", type=int, default=0)
    return made


def finish(name: str, good: int, count: int, faults: list[str]) -> int:
    """Print the result and the faults; the exit code."""
    print(f"{name}: {good} of {count}", *faults, sep="\n  ")
    return 0 if good == count and not faults else 1

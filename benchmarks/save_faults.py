"""A fault at every file operation of a save: what is left, what is said, and does the run go on?

    python benchmarks/save_faults.py [--count 0] [--seed 0]

ENOSPC, EIO and EACCES at every open for writing, write, fsync, mkdir, chmod, rename, unlink and rmdir; at every write
also one that is cut short, with ENOSPC after it, and, in safetensors and JSON files, one that loses half in silence.
Wanted each time: exit code 3 and one line, a checkpoint that verifies, and with `--resume auto` the end of the
undisturbed run. Exit code 0 is right where the checkpoint is complete all the same: an old one that cannot be removed,
which the log tells, or a folder made that was there already. `--count` draws that many points; 0 is all.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaign import World, complete, finish, fork_to, parser, wait, world

SETTINGS = {"max_steps": 3, "save_steps": 1, "save_total_limit": 2}
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES}
SHORT, SILENT = "short write", "silent short write"


class Faults:
    """Counts the file operations inside saves and lets one fail.

    Args:
        at: which one, from 1.
        kind: a key of ERRORS, or SHORT or SILENT.
        log: gets a line for each operation, if there is one.
    """

    def __init__(self, at: int, kind: str, log: Path | None = None) -> None:
        self.at, self.kind = at, kind
        self.seen = 0
        self.inside = False
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT) if log else None

    def install(self) -> None:
        """Take the place of the operations, in this process for good."""
        import safetensors.torch
        from transformers import PreTrainedTokenizerFast

        from medtune.engine.saving import Saver

        for name in ("fsync", "mkdir", "chmod", "rename", "replace", "unlink", "rmdir"):
            setattr(os, name, self._failing(getattr(os, name), name))
        self.open = builtins.open
        builtins.open = io.open = self._open  # type: ignore[assignment]
        save, serialize = PreTrainedTokenizerFast._save_pretrained, safetensors.torch.serialize_file
        PreTrainedTokenizerFast._save_pretrained = self._failing(save, "write tokenizer.json", Exception)
        safetensors.torch.serialize_file = lambda *a, **k: self._serialize(serialize, *a, **k)
        run = Saver.run
        Saver.run = lambda saver, save: run(saver, lambda: self._save(save))  # type: ignore[method-assign]

    def _save(self, save: Callable[[], None]) -> None:
        self.inside = True
        try:
            save()
        finally:
            self.inside = False

    def strikes(self, operation: str) -> bool:
        """Count one operation; true for the one that is to fail."""
        if not self.inside:
            return False
        self.seen += 1
        if self.log is not None:
            os.write(self.log, f"{operation}\n".encode())
        return self.seen == self.at

    def fault(self, kind: type[Exception] = OSError) -> Exception:
        """An error as Python raises it, or, with another `kind`, as Rust libraries tell it."""
        number = ERRORS.get(self.kind, errno.ENOSPC)
        text = os.strerror(number)
        return OSError(number, text) if kind is OSError else kind(f"I/O error: {text} (os error {number})")

    def _failing(self, original: Any, name: str, kind: type[Exception] = OSError) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if self.strikes(name):
                raise self.fault(kind)
            return original(*arguments, **named)

        return call

    def _open(self, file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if not self.inside or not set(mode) & set("wax+"):
            return self.open(file, mode, *arguments, **named)
        if self.strikes("open"):
            raise self.fault()
        return Written(self.open(file, mode, *arguments, **named), self, Path(str(file)).suffix)

    def _serialize(self, original: Any, tensors: Any, filename: Any, **named: Any) -> None:
        from safetensors import SafetensorError

        strikes = self.strikes("write .safetensors")
        if strikes and self.kind in ERRORS:
            raise self.fault(SafetensorError)
        original(tensors, filename, **named)
        if strikes:
            os.truncate(filename, Path(filename).stat().st_size // 2)
            if self.kind == SHORT:
                raise self.fault(SafetensorError)


class Written:
    """A file whose writes may fail."""

    def __init__(self, stream: Any, faults: Faults, suffix: str) -> None:
        self.stream, self.faults, self.suffix = stream, faults, suffix

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stream.close()

    def write(self, data: Any) -> int:
        """Write, unless it is this write's turn to fail."""
        if not self.faults.strikes(f"write {self.suffix}"):
            return self.stream.write(data)
        if self.faults.kind in ERRORS:
            raise self.faults.fault()
        self.stream.write(data[: len(data) // 2])
        if self.faults.kind == SHORT:
            raise self.faults.fault()
        return len(data)


def prepare(place: World) -> list[str]:
    """Make the undisturbed run, "whole", and one before its third save, "two"; the operations of that save."""
    log, two, operations = place.folder / "log", place.folder / "two", place.folder / "operations"
    complete(log, place.words("two", **{**SETTINGS, "save_total_limit": 3}))
    shutil.rmtree(two / "iter_3.pth")
    shutil.copytree(two, place.folder / "whole")
    words = place.words("whole", **SETTINGS)
    complete(log, words, Faults(0, "", operations).install)
    return operations.read_text().splitlines()


def points(operations: list[str]) -> list[tuple[int, str]]:
    """Every operation with every fault that it may have."""
    made = [(at, kind) for at in range(1, len(operations) + 1) for kind in ERRORS]
    for at, operation in enumerate(operations, start=1):
        if operation.startswith("write") and operation != "write tokenizer.json":
            made.append((at, SHORT))
            if operation in ("write .safetensors", "write .json"):
                made.append((at, SILENT))
    return made


def whole_files(folder: Path) -> dict[str, bytes]:
    """Files of a checkpoint but those that hold times or this run's settings."""
    varying = ("state.json", "config.py", "manifest.json")
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.name not in varying} if folder.is_dir() else {}


def after_fault(place: World, at: int, kind: str, wanted: dict[str, bytes]) -> str:
    """Let one operation of the third save fail; what is wrong after it, or ""."""
    from medtune.engine.checkpoint import newest_valid

    run, log = place.folder / "run", place.folder / "log"
    shutil.copytree(place.folder / "two", run)
    words = place.words("run", **SETTINGS, async_save=bool(at % 2))
    code = wait(fork_to(log, words, Faults(at, kind).install))
    text = log.read_text()
    told = [line for line in text.splitlines() if line.startswith("medtune: ")]
    wrong = []
    complete = code == 0 and whole_files(run / "iter_3.pth") == wanted
    if not (complete or code == 3) or len(told) != (code == 3) or "Traceback" in text:
        wrong.append(f"exit code {code}, told: {told}")
    if newest_valid(run, lambda _: None) is None:
        wrong.append("no checkpoint verifies")
    code = wait(fork_to(log, words))
    if code != 0 or whole_files(run / "iter_3.pth") != wanted:
        wrong.append(f"--resume auto ended with {code}, or with other weights")
    shutil.rmtree(run)
    return "; ".join(wrong)


def main(words: list[str] | None = None) -> int:
    """Run the campaign."""
    arguments = parser(__doc__ or "", 0).parse_args(words)
    faults, done = [], Counter[str]()
    with world() as place:
        operations = prepare(place)
        wanted = whole_files(place.folder / "whole" / "iter_3.pth")
        chosen = points(operations)
        if arguments.count:
            chosen = random.Random(arguments.seed).sample(chosen, arguments.count)
        for at, kind in chosen:
            if wrong := after_fault(place, at, kind, wanted):
                faults.append(f"{kind} at operation {at}, {operations[at - 1]}: {wrong}")
            done[kind] += 1
    print(f"{len(operations)} operations in a save; {dict(done)}")
    return finish("saves that failed well", len(chosen) - len(faults), len(chosen), faults)


if __name__ == "__main__":
    sys.exit(main())

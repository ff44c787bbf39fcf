"""Every fault medtune reports on purpose, and the exit code each one gives the shell.

MedtuneError                 1  our own fault
├── UsageError               2  the command line or an input is wrong
│   ├── ConfigError          2  a config file or an override
│   ├── DataError            2  a data file or one of its rows
│   └── ModelError           2  a model, adapter or checkpoint folder
├── EnvironmentFault         3  the machine: no GPU, full disk, out of memory, a non-finite loss
│   └── PeerFault            3  another process of the same training ended, or its exit code
├── Stopped                 75  stopped on a signal, with a checkpoint saved
└── Interrupted            130  the same, on Ctrl-C

A message says where, what was got, what was wanted and what to do next, on one line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class MedtuneError(Exception):
    """Base of all faults that the command line prints as one line, without a traceback."""

    exit_code = 1


class UsageError(MedtuneError):
    """The command line, or something it names, is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file or an override is wrong."""


class DataError(UsageError):
    """A data file or a row in it is wrong."""


class ModelError(UsageError):
    """A model, adapter or checkpoint folder is wrong or does not fit."""


class EnvironmentFault(MedtuneError):
    """The machine cannot do what was asked: GPU, disk, memory, or the numbers ran away."""

    exit_code = 3


class PeerFault(EnvironmentFault):
    """Another rank of this training failed; this one ends because of it.

    Args:
        message: the line.
        exit_code: the other rank's, if it is known.
    """

    def __init__(self, message: str, exit_code: int = EnvironmentFault.exit_code) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Stopped(MedtuneError):
    """Training stopped on a signal after saving a checkpoint; the same command continues it."""

    exit_code = 75


class Interrupted(MedtuneError):
    """Training stopped on Ctrl-C after saving a checkpoint."""

    exit_code = 130


def printable(text: str) -> str:
    """Text for a terminal, with the control characters that it would obey, and a file may hold, written as \\x1b."""
    return CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def nearest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return " Did you mean 'a' or 'b'?" for the known names closest to `name`, or ""."""
    close = difflib.get_close_matches(name, dict.fromkeys(known), n=limit, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""

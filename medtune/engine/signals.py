"""The signals that ask a training to stop: SIGINT (Ctrl-C), SIGTERM and SIGUSR1 (Slurm's warning)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from medtune.errors import Stopped

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def handled_by(handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Inside, `handler` gets the signals that ask for a stop."""
    previous = {number: signal.signal(number, handler) for number in STOPPING}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)


def stop_before_training(number: int, frame: Any) -> NoReturn:
    """A handler for the time of loading, when there is nothing to save yet.

    Raises:
        SystemExit: exit code 75. KeyboardInterrupt: 130, for Ctrl-C. No library takes these for a fault of its own.
    """
    next_at_once()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    os.write(2, b"medtune: stopped before the first step; nothing is lost. Run the same command again.\n")
    raise SystemExit(Stopped.exit_code)


def next_at_once() -> None:
    """Let the next signal end the process at once; what it leaves on the disk is what a kill leaves."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL)


def ignore(*_: Any) -> None:
    """For a process that prepares data: a signal to the whole group is its parent's to answer, which needs its data."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)

"""How long, and with how much memory, what a download asks for may run, and how far its archives may unpack."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

SECONDS = 2.0
NBYTES = 512 << 20
PAGE = resource.getpagesize()
ROW_BYTES = 256 << 20  # of one row, line or value of a data file (characters, where it is text)
XML_BYTES = 64 << 20  # of one XML document, which stands in memory as a tree, ten times as large
UNPACKED_BYTES = 256 << 30  # of all that one archive holds
UNPACKED_RATIO = 200  # to the archive's own size; text packs to a fourth, repeated rows to a fiftieth
UNPACKED_FREE = 64 << 20  # up to here any ratio will do
MEMBERS = 1_000_000  # of one archive
STATM = "/proc/self/statm"  # the first number is this process's pages, in use or only reserved


class OverLimit(Exception):
    """What ran inside `limited` took too long."""


@contextmanager
def limited(seconds: float = SECONDS, nbytes: int = NBYTES) -> Iterator[None]:
    """Inside, Python code and regular expressions end after `seconds`, and `nbytes` more memory is all there is.

    One C operation, such as a power of large numbers, is not interrupted. The time counts in the main thread only, the
    memory on Linux only.

    Raises:
        OverLimit: the time is over.
        MemoryError: by whatever asked for more.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    memory = resource.getrlimit(resource.RLIMIT_AS)
    if in_main_thread:
        handler = signal.signal(signal.SIGALRM, _over)
        timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        _allow(nbytes, memory)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, memory)
        if in_main_thread:
            signal.setitimer(signal.ITIMER_REAL, *timer)
            signal.signal(signal.SIGALRM, handler)


def _over(*_: Any) -> NoReturn:
    raise OverLimit("it takes too long")


def _allow(nbytes: int, memory: tuple[int, int]) -> None:
    try:
        handle = os.open(STATM, os.O_RDONLY)  # a third of the time of a stream; this runs for every row
        now = int(os.read(handle, 99).split()[0]) * PAGE
        os.close(handle)
    except OSError:
        return
    bounds = [limit for limit in (now + nbytes, *memory) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(bounds), memory[1]))

"""Limits: what takes too long or wants too much ends, and everything is as before afterwards."""

from __future__ import annotations

import re
import resource
import signal
import threading
import time

import pytest

from medtune.limits import OverLimit, limited


def test_an_endless_loop_ends():
    began = time.monotonic()
    with pytest.raises(OverLimit), limited(seconds=0.1):
        while True:
            pass
    assert time.monotonic() - began < 5


def test_a_slow_regular_expression_ends():
    with pytest.raises(OverLimit), limited(seconds=0.1):
        re.fullmatch(r"(([a-z_.0-9]+)+)+!", "model.layers.0.self_attn.q_proj")


def test_a_request_for_too_much_memory_is_refused():
    with pytest.raises(MemoryError), limited(nbytes=64 << 20):
        bytearray(1 << 30)


def test_what_stays_within_the_limits_runs_and_all_is_as_before():
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)
    with limited(seconds=5, nbytes=256 << 20):
        assert len(bytearray(64 << 20)) == 64 << 20
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_outside_the_main_thread_only_the_memory_is_limited():
    refused = []

    def ask() -> None:
        with limited(nbytes=64 << 20):
            try:
                bytearray(1 << 30)
            except MemoryError:
                refused.append(True)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert refused == [True]

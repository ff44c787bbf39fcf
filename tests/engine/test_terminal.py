"""What a training shows on a terminal: log lines above a bar, nothing of other libraries, and a clean end."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import select
import struct
import sys
import termios
import time

import pytest
from helpers import cli, cli_environment, tiny_llama_folder, words_of, write_questions

from medtune.compat import logs_above_bar

CTRL_C = b"\x03"


def on_a_terminal(words, until, key):
    """What a command prints on a terminal of 150 columns, where a key is pressed once `until` has been seen."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, cli(*words), cli_environment())
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 150, 0, 0))
    printed, end = b"", time.monotonic() + 120
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                printed += os.read(terminal, 1 << 16)
            except OSError:  # the other end is closed
                break
        if key and until in printed:
            os.write(terminal, key)
            key = b""
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), printed.decode(errors="replace")


@pytest.mark.slow
def test_ctrl_c_closes_the_bar_and_the_last_line_says_how_to_go_on(tmp_path):
    model, data = tiny_llama_folder(tmp_path / "tiny"), write_questions(tmp_path / "questions.jsonl")
    words = words_of(model, data, method="full", max_steps=100_000, save_steps=2)
    code, printed = on_a_terminal([*words, "--work-dir", str(tmp_path / "run")], b"saved iter_2.pth", CTRL_C)
    assert code == 130, printed
    *_, bar, last = [line for line in printed.split("\r\n") if line.strip()]
    assert re.match(r"medtune: stopped at step \d+; saved .*\. Continue with --resume auto\.$", last)
    assert "step/s]" in bar  # it stands, closed, on a line of its own
    assert not re.search("DEBUG|Hooks will be|Loading weights|Writing model shards|Traceback", printed)
    assert printed.count("saved iter_2.pth") == 1


def test_lines_above_a_bar_are_those_that_the_terminal_showed_before(capsys):
    logger = logging.Logger("a logger that lets everything through, for its file")
    console = logging.StreamHandler(sys.stderr)
    console.setLevel("INFO")
    logger.addHandler(console)
    with logs_above_bar(logger):
        logger.debug("of another library")
        logger.info("step 1")
    assert logger.handlers == [console]
    assert "of another library" not in capsys.readouterr().err

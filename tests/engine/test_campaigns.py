"""A fast slice of each campaign in `benchmarks/`; the full ones are run by hand before a release."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT
from helpers import cli_environment

pytestmark = pytest.mark.slow


def campaign(name, *words):
    script = ROOT / "benchmarks" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, str(script), *words], env=cli_environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_4_kills_and_the_run_ends_as_if_nobody_had_disturbed_it():
    told = campaign("kill_training", "--count", "4")
    assert "identical after SIGKILL and --resume auto: 4 of 4" in told
    assert not told.startswith("0 kills inside a save")


def test_2_settings_of_the_resume_matrix_are_equal_in_every_bit():
    assert "resumed runs equal in every bit, ranks 1: 6 of 6" in campaign("resume_matrix", "--count", "2")


def test_6_faults_in_a_save_leave_a_checkpoint_one_line_and_a_run_that_goes_on():
    assert "saves that failed well: 6 of 6" in campaign("save_faults", "--count", "6")


def test_60_damages_of_a_checkpoint_are_noticed_and_the_older_one_is_used():
    assert "damages noticed, older checkpoint used: 60 of 60" in campaign("corruption", "--count", "60")


def test_4_signals_stop_the_run_in_order_and_nothing_is_lost():
    assert "signals answered rightly: 4 of 4" in campaign("signals", "--count", "4")


def test_a_step_far_into_the_data_is_found_at_once():
    assert "at step 10000 in" in campaign("seek", "--count", "100000", "--step", "10000")

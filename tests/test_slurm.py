"""The job script of docs/slurm.md with a pretended Slurm: it goes back into the queue after 75 and only then."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from conftest import ROOT


def job_script():
    """The script as the page shows it."""
    page = (ROOT / "docs" / "slurm.md").read_text(encoding="utf-8")
    return re.search(r"```bash\n(.*?)```", page, re.DOTALL)[1]


def run_job(folder, train):
    """Run the job once, with `train` as the text of a `medtune`; returns its exit code and what Slurm was asked."""
    asked = folder / "asked"
    programs = {
        "srun": 'shift\nexec "$@"',  # its one option, then the command
        "scontrol": f'echo "scontrol $*" >> {asked}',
        "medtune": f'echo "medtune $*" >> {asked}\n{train}',
        "job": job_script().removeprefix("#!/bin/bash\n"),
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o700)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711"}
    job = subprocess.Popen([folder / "job", "./my_config.py", "--work-dir", "my run"], env=environment)
    return job.wait(timeout=30), asked.read_text().splitlines()


@pytest.mark.parametrize("code, requeued", [(75, True), (0, False), (2, False), (3, False), (130, False)])
def test_the_job_is_queued_again_after_75_only_and_tells_the_code(tmp_path, code, requeued):
    ended, asked = run_job(tmp_path, f"exit {code}")
    assert ended == code
    assert asked[0] == "medtune train ./my_config.py --work-dir my run --resume auto"
    assert asked[1:] == (["scontrol requeue 4711"] if requeued else [])


def test_the_warning_reaches_the_training_and_not_the_script(tmp_path):
    warn = 'trap "exit 75" USR1\nkill -USR1 $PPID\nkill -USR1 $$\nexit 1'
    ended, asked = run_job(tmp_path, warn)
    assert ended == 75
    assert asked[-1] == "scontrol requeue 4711"


def test_the_script_asks_for_the_warning_and_may_be_queued_again():
    options = [line.split()[1] for line in job_script().splitlines() if line.startswith("#SBATCH")]
    assert {"--signal=USR1@90", "--requeue"} <= set(options)

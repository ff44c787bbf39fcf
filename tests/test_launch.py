"""Several processes from one command: what the environment asks for, signals, exit codes, and whose message is last."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from helpers import cli, cli_environment, tiny_llama_folder, words_of, write_questions

from medtune import launch
from medtune.errors import EnvironmentFault, UsageError
from medtune.launch import Layout

PYTHON = sys.executable
TWO = {"NPROC_PER_NODE": "2"}


# ---------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    ("environment", "layout"),
    [
        ({}, None),
        ({"NPROC_PER_NODE": "1", "NNODES": "1"}, None),
        ({"NPROC_PER_NODE": "8", "WORLD_SIZE": "8", "RANK": "3"}, None),  # torchrun or srun started this one
        ({"NPROC_PER_NODE": "8", "PORT": "1234"}, Layout(8, port=1234)),
        ({"NNODES": "2", "ADDR": "n0"}, Layout(1, 2, 0, "n0", 29500)),  # one default port, the same on every node
        ({"NPROC_PER_NODE": "4", "NNODES": "2", "NODE_RANK": "1", "ADDR": "n0"}, Layout(4, 2, 1, "n0", 29500)),
        (
            {"PET_NPROC_PER_NODE": "4", "PET_NNODES": "2", "MASTER_ADDR": "n0", "MASTER_PORT": "7"},
            Layout(4, 2, 0, "n0", 7),
        ),
    ],
    ids=str,
)
def test_the_environment_says_how_many_processes_and_where_they_meet(environment, layout):
    assert launch.wanted(environment) == layout


def test_on_one_node_two_runs_at_a_time_get_different_free_ports():
    with socket.socket() as first:
        first.bind(("127.0.0.1", launch.wanted(TWO).port))
        assert launch.wanted(TWO).port != first.getsockname()[1]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"NPROC_PER_NODE": "two"}, "NPROC_PER_NODE=two: wanted a whole number, 1 or more"),
        ({"NPROC_PER_NODE": "0"}, "NPROC_PER_NODE=0: wanted a whole number, 1 or more"),
        ({"NNODES": "2", "NODE_RANK": "2", "ADDR": "n0"}, "NODE_RANK=2: wanted 0 to 1"),
        ({"NNODES": "2"}, "set ADDR to the address of node 0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(environment, message):
    with pytest.raises(UsageError, match=message):
        launch.wanted(environment)


# ---------------------------------------------------------------- ends, with ranks that only pretend


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Every rank runs a few lines of Python in place of medtune; given `rank` and `tell(message, code, echo)`."""

    def use(lines, **environment):
        program = tmp_path / "rank"
        head = f"""\
            #!{PYTHON}
            import os, signal, sys, time
            sys.path.insert(0, {str(Path(launch.__file__).parent.parent)!r})
            from medtune.launch import tell_launcher as tell
            rank = int(os.environ["RANK"])
            """
        program.write_text(textwrap.dedent(head) + textwrap.dedent(lines))
        program.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(program))
        return launch.launch(["train"], launch.wanted({**TWO, **environment}))

    return use


@pytest.mark.parametrize("code", [0, 1, 2, 3, 75, 130])
def test_the_exit_code_of_a_rank_is_that_of_the_command(fake, code):
    assert fake(f"sys.exit({code} if rank else 0)") == code


def test_the_cause_is_named_last_though_its_rank_ended_after_one_that_lost_it(fake, capsys):
    """The fault it finds: blaming the rank whose end is noticed first, or the agent's SIGTERM."""
    code = fake(
        """
        if rank:
            tell("data.jsonl:3: the answer is empty.", 2, False)
            time.sleep(30)
        time.sleep(0.3)
        tell("rank 0 lost another rank", 3, True)
        sys.exit(3)
        """
    )
    assert code == 2
    assert capsys.readouterr().err == "medtune: rank 1: data.jsonl:3: the answer is empty.\n"


def test_a_node_whose_ranks_only_lost_others_says_so(fake, capsys):
    assert fake("tell('rank 9: train.jsonl:3: the answer is empty.', 2, True); sys.exit(2)") == 2
    assert capsys.readouterr().err == "medtune: rank 9: train.jsonl:3: the answer is empty.\n"


def test_a_rank_that_is_killed_ends_the_others_within_seconds(fake, capsys):
    started = time.monotonic()
    assert fake("time.sleep(0.2 if rank else 60); os.kill(os.getpid(), signal.SIGKILL)") == 128 + signal.SIGKILL
    assert time.monotonic() - started < 10
    assert "medtune: rank 1: Signal 9 (SIGKILL)" in capsys.readouterr().err.splitlines()[-1]


def test_what_rank_0_has_said_is_not_said_again(fake, capsys):
    assert fake("tell('stopped at step 3.', 75, False); sys.exit(75)") == 75
    assert capsys.readouterr().err == ""
    assert fake("tell('stopped at step 3.', 75, False) if rank else time.sleep(30); sys.exit(75)") == 75
    assert capsys.readouterr().err == "medtune: rank 1: stopped at step 3.\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_reaches_every_rank_which_ends_in_its_own_time(fake, tmp_path, number):
    """The fault it finds: torchrun's, which dies of SIGUSR1 and turns 75 into 1."""
    before = signal.getsignal(number)

    def send():
        wait_for(lambda: len(list(tmp_path.glob("ready-?"))) == 2)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()
    code = fake(
        f"""
        os.chdir({str(tmp_path)!r})
        def end(number, frame):
            time.sleep(0.3)
            open(f"{{rank}}-{{number}}", "w").close()
            os._exit(75)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, end)
        open(f"ready-{{rank}}", "w").close()
        time.sleep(30)
        """
    )
    assert code == 75
    arrived = signal.SIGTERM if number == signal.SIGHUP else number
    assert {f.name for f in tmp_path.glob("[01]-*")} == {f"{rank}-{int(arrived)}" for rank in range(2)}
    assert signal.getsignal(number) == before


def test_a_port_in_use_is_one_line_that_names_it(fake):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(EnvironmentFault, match=f"could not meet at 127.0.0.1:{port}: .*Set PORT"):
            fake("", PORT=port)


# ---------------------------------------------------------------- the real command


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The command line of a small run over a data file that a test may spoil."""
    folder = tmp_path_factory.mktemp("launch")
    model = tiny_llama_folder(folder / "tiny")
    return lambda data, **settings: words_of(model, write_questions(data), **settings)


def start(folder, words, **environment):
    return subprocess.Popen(
        cli(*words),
        cwd=folder,
        env=cli_environment(**{**TWO, **environment}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def logged(folder, rank):
    pattern = "sft/*/*.log" if rank == 0 else f"sft/rank_{rank:05d}.log"
    return "".join(f.read_text() for f in (folder / "work_dirs").glob(pattern))


def wait_for(what, run=None):
    deadline = time.monotonic() + 90
    while not what():
        assert time.monotonic() < deadline
        assert run is None or run.poll() is None, run.communicate()
        time.sleep(0.1)


def rank_processes(launcher):
    """Rank -> process id of a launcher's ranks."""
    found = {}
    for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
        found.update({int(entry[5:]): int(pid) for entry in environment if entry.startswith("RANK=")})
    return found


@pytest.mark.slow
def test_two_ranks_train_and_only_rank_0_prints(tmp_path, words):
    run = start(tmp_path, words(tmp_path / "q.jsonl", max_steps=2))
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert out.count("Iter(train) [2/2]") == 1 and out.count("done: 2 steps") == 1
    assert logged(tmp_path, 1).count("Iter(train) [2/2]") == 1
    folder = tmp_path / "work_dirs" / "sft" / "iter_2.pth"
    assert {"rank_00000.safetensors", "rank_00001.safetensors"} < set(
        json.loads((folder / "manifest.json").read_text())["files"]
    )
    assert (tmp_path / "work_dirs" / "sft" / "rank_00001.log").stat().st_mode & 0o77 == 0


@pytest.mark.slow
def test_bad_data_ends_both_with_2_and_one_line(tmp_path, words):
    typed = words(tmp_path / "q.jsonl")
    with (tmp_path / "q.jsonl").open("a") as stream:
        stream.write('{"question": "Why?", "answer": ""}\n')
    run = start(tmp_path, typed)
    _, err = run.communicate(timeout=120)
    assert run.returncode == 2
    assert err.count("the answer is empty") == 1
    assert err.splitlines()[-1].startswith("medtune: ") and "q.jsonl:25: the answer is empty" in err.splitlines()[-1]


@pytest.mark.slow
def test_sigterm_saves_and_gives_75_and_the_resumed_ranks_do_not_outlive_their_launcher(tmp_path, words):
    run = start(tmp_path, words(tmp_path / "q.jsonl", max_steps=100_000, save_steps=100_000))
    wait_for(lambda: "Iter(train)" in logged(tmp_path, 0), run)
    run.terminate()
    _, err = run.communicate(timeout=120)
    assert run.returncode == 75, err
    saved = [f.name for f in (tmp_path / "work_dirs" / "sft").glob("iter_*.pth")]
    assert len(saved) == 1 and f"saved {tmp_path / 'work_dirs' / 'sft' / saved[0]}" in err.splitlines()[-1]
    run = start(tmp_path, [*words(tmp_path / "q.jsonl", max_steps=100_000, save_steps=100_000), "--resume", "auto"])
    wait_for(lambda: f"resumed from {saved[0]}" in logged(tmp_path, 1), run)
    left_alone = rank_processes(run.pid)
    run.kill()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left_alone.values()))
    run.communicate()
    assert run.returncode == -signal.SIGKILL and len(left_alone) == 2


@pytest.mark.slow
def test_a_rank_that_dies_in_training_ends_the_run_with_its_cause_as_the_last_line(tmp_path, words):
    run = start(tmp_path, words(tmp_path / "q.jsonl", max_steps=100_000, save_steps=100_000))
    wait_for(lambda: "Iter(train)" in logged(tmp_path, 0), run)
    died = rank_processes(run.pid)
    os.kill(died[1], signal.SIGKILL)
    started = time.monotonic()
    _, err = run.communicate(timeout=60)
    assert time.monotonic() - started < 20
    assert run.returncode == 128 + signal.SIGKILL
    assert "rank 1: Signal 9 (SIGKILL)" in err.splitlines()[-1]
    assert not Path(f"/proc/{died[0]}").exists()


@pytest.mark.slow
def test_under_another_launcher_a_signal_to_one_rank_stops_all_at_the_same_step(tmp_path, words):
    """As srun starts ranks: WORLD_SIZE is set, and a signal may reach one earlier than another, or only one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    typed = words(tmp_path / "q.jsonl", max_steps=100_000, save_steps=100_000)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    runs = [start(tmp_path, typed, **place, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in range(2)]
    wait_for(lambda: "Iter(train)" in logged(tmp_path, 1), runs[1])
    runs[1].send_signal(signal.SIGUSR1)
    told = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [75, 75], told
    assert told[1] == ("", "")
    stopped = told[0][1].splitlines()[-1]
    assert stopped in logged(tmp_path, 1)


@pytest.mark.slow
def test_two_nodes_meet_at_one_port_and_both_commands_end_with_the_same_code(tmp_path, words):
    place = {"NPROC_PER_NODE": "1", "NNODES": "2", "ADDR": "127.0.0.1", "PORT": str(launch.wanted(TWO).port)}
    typed = words(tmp_path / "q.jsonl", max_steps=2)
    runs = [start(tmp_path, typed, **place, NODE_RANK=str(node)) for node in range(2)]
    told = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    assert "Iter(train) [2/2]" in told[0][0] and told[1] == ("", "")

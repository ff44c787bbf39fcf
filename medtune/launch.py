"""`NPROC_PER_NODE=8 medtune train ...`: the same command in several processes, on one node or many.

Torch's elastic agent starts the ranks and watches them, as under torchrun. What torchrun would lose is kept: signals
reach the ranks, which finish their step and save; the exit code is that of the rank that failed first, and its message
is the last line. Standard library only until there is something to launch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from medtune.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

PORT = 29500
"""Where the nodes meet when PORT is not given; on one node any free port is taken."""

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@dataclass(frozen=True)
class Layout:
    """How many processes there are, and where they meet."""

    num_per_node: int
    num_nodes: int = 1
    node: int = 0
    """This node's number."""
    address: str = "127.0.0.1"
    """Of node 0."""
    port: int = PORT


def wanted(environment: Mapping[str, str]) -> Layout | None:
    """What the environment asks for; None if one process, or if another launcher (torchrun, srun) started this one.

    Reads XTuner's names (NPROC_PER_NODE, NNODES, NODE_RANK, ADDR, PORT) and torchrun's.

    Raises:
        UsageError: a number is none, or a node does not know its number or node 0's address.
    """
    if "WORLD_SIZE" in environment:
        return None
    num_per_node = _number(environment, ("NPROC_PER_NODE", "PET_NPROC_PER_NODE"), 1, 1)
    num_nodes = _number(environment, ("NNODES", "PET_NNODES"), 1, 1)
    if num_per_node * num_nodes == 1:
        return None
    node = _number(environment, ("NODE_RANK", "PET_NODE_RANK"), 0, 0)
    ports = ("PORT", "MASTER_PORT", "PET_MASTER_PORT")
    addresses = ("ADDR", "MASTER_ADDR", "PET_MASTER_ADDR")
    address = next((environment[name] for name in addresses if environment.get(name)), None)
    if node >= num_nodes:
        raise UsageError(f"NODE_RANK={node}: wanted 0 to {num_nodes - 1}, since NNODES={num_nodes}.")
    if num_nodes > 1 and address is None:
        raise UsageError(f"NNODES={num_nodes}: set ADDR to the address of node 0, on every node.")
    port = _number(environment, ports, PORT if num_nodes > 1 else _free_port(), 1)
    return Layout(num_per_node, num_nodes, node, address or "127.0.0.1", port)


def _number(environment: Mapping[str, str], names: Sequence[str], otherwise: int, least: int) -> int:
    name = next((name for name in names if environment.get(name)), None)
    if name is None:
        return otherwise
    text = environment[name]
    if not text.isdecimal() or int(text) < least:
        raise UsageError(f"{name}={text}: wanted a whole number, {least} or more.")
    return int(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(words: Sequence[str], layout: Layout) -> int:
    """Run `medtune WORDS` in this node's share of the processes, to their end.

    Returns:
        0, or the exit code of the rank that failed first; 128 + N if signal N killed it.

    Raises:
        EnvironmentFault: the processes cannot meet: a port in use, a node that did not come.
    """
    from torch.distributed import DistError

    logging.disable(logging.CRITICAL)  # the agent's own messages; the ranks' are not touched
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // layout.num_per_node)))
    with tempfile.TemporaryDirectory(prefix="medtune-launch-") as folder:
        agent = _agent(words, layout, folder)
        previous = {number: signal.signal(number, _forward(agent)) for number in FORWARDED}
        try:
            result = agent.run()
        except DistError as fault:
            reason = " ".join(str(fault).split())[:200]
            raise EnvironmentFault(
                f"the processes could not meet at {layout.address}:{layout.port}: {reason}. "
                "Set PORT to a free port, the same on every node, and start all NNODES nodes."
            ) from fault
        finally:
            logging.disable(logging.NOTSET)
            for number, handler in previous.items():
                signal.signal(number, handler)
    if not result.is_failed():
        return 0
    ends = [_end(number, failure) for number, failure in result.failures.items()]
    cause = min(ends)
    if cause.kind == 2:
        print(f"medtune: {cause.message}", file=sys.stderr)
    elif not any(end.rank == 0 and end.kind == 0 and end.message == cause.message for end in ends):  # it has said so
        print(f"medtune: rank {cause.rank}: {cause.message}", file=sys.stderr)
    return cause.exit_code


def _agent(words: Sequence[str], layout: Layout, folder: str) -> LocalElasticAgent:
    """Torch's agent for this node; it never restarts the ranks."""
    from torch.distributed.elastic.agent.server import WorkerSpec
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.rendezvous import RendezvousParameters, registry

    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ""  # its handlers would end the ranks; ours forward
    meeting = RendezvousParameters(
        backend="static",
        endpoint=f"{layout.address}:{layout.port}",
        run_id="medtune",
        min_nodes=layout.num_nodes,
        max_nodes=layout.num_nodes,
        rank=layout.node,
        timeout=900,
    )
    spec = WorkerSpec(
        role="train",
        local_world_size=layout.num_per_node,
        rdzv_handler=registry.get_rendezvous_handler(meeting),
        entrypoint=sys.executable,
        args=("-m", "medtune", *words),
        max_restarts=0,
        master_addr=layout.address,
        master_port=layout.port,
    )
    return LocalElasticAgent(spec, DefaultLogsSpecs(log_dir=folder))


def _forward(agent: LocalElasticAgent) -> Any:
    """A handler that passes a signal on to every rank and lets them end by themselves."""

    def handler(number: int, frame: Any) -> None:
        pids = [worker.id for worker in agent.get_worker_group().workers if isinstance(worker.id, int)]
        if not pids:
            sys.exit(128 + number)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if number == signal.SIGHUP else number)

    return handler


# ---------------------------------------------------------------- in a rank


def end_with_launcher() -> None:
    """Get SIGTERM when the launcher dies, even of SIGKILL: a rank that nobody watches would train on. Linux only."""
    if ERROR_FILE in os.environ and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG


def tell_launcher(message: str, exit_code: int, echo: bool) -> bool:
    """Leave a fault's line for the launcher, in the form that torchrun reads too.

    Args:
        message: the line.
        exit_code: of this rank.
        echo: whether the fault is only the answer to another rank's.

    Returns:
        True if the launcher will tell it, so that the rank need not.
    """
    file = os.environ.get(ERROR_FILE)
    if not file:
        return False
    extra = {"timestamp": str(int(time.time())), "time": time.time(), "echo": echo}
    data = {"message": {"message": message, "errorCode": exit_code, "extraInfo": extra}}
    Path(file).write_text(json.dumps(data), encoding="utf-8")
    return echo or os.environ.get("RANK", "0") != "0"


# ---------------------------------------------------------------- who failed first


class _End(NamedTuple):
    """How a rank failed. They sort by how likely each is the cause, and not an effect of another's end."""

    kind: int
    """0: it left a message of its own; 1: it died without; 2: it lost another rank; 3: the agent ended it."""
    time: float
    rank: int
    exit_code: int
    message: str


def _end(rank: int, failure: Any) -> _End:
    """Read what is known of a failed rank: its message, if it left one, and its exit code."""
    left = failure.error_file_data.get("message")
    if isinstance(left, dict):
        extra = left["extraInfo"]
        return _End(2 if extra["echo"] else 0, extra["time"], rank, left["errorCode"], left["message"])
    if failure.exitcode >= 0:
        return _End(1, failure.timestamp, rank, failure.exitcode, f"ended with exit code {failure.exitcode}")
    kind = 3 if -failure.exitcode == signal.SIGTERM else 1
    return _End(kind, failure.timestamp, rank, 128 - failure.exitcode, failure.message)

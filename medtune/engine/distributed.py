"""Several processes that train one model: plain data parallel over torch.distributed.

Every rank holds the whole model and its share of each step's data. Gradients are summed once, after a step's last
micro-batch, in flat buckets. torch's DistributedDataParallel is not used, because it

- divides by the number of ranks, where the loss is divided by the step's units, so that it would have to be undone;
- exchanges after every micro-batch unless it is told not to, and waits for a backward pass on every rank, which a rank
  with an empty last step does not have;
- wraps the model and renames its parameters, so that everything else has to look through the wrapper.

What it would give is communication during the backward pass. `reduce_gradients` is the place for that: hooks on the
last micro-batch's gradients could start its buckets early, and nobody else would notice. An engine that shards
(DeepSpeed, FSDP) replaces this one call; the sums, texts and barriers stay.

Counts and texts travel over gloo, so that a GPU is not waited for; gradients over nccl where there are GPUs.
Without a process group every function here is that of one rank.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from medtune.errors import EnvironmentFault, MedtuneError, PeerFault

BUCKET = 1 << 24
"""Elements of a gradient bucket: 64 MB of fp32."""


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the rank that prints and writes the run's files."""
    return rank() == 0


# ---------------------------------------------------------------- start and stop


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Be one of the processes that torchrun's environment variables describe, if they describe several.

    At the end every rank waits for the others. After a fault or a signal none does: the others may be elsewhere, and
    learn it from the lost connection.

    Args:
        device: "cuda" or "cpu", with or without a number; it decides the backend.

    Raises:
        EnvironmentFault: this node has fewer GPUs than ranks.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or world_size() > 1:
        yield
        return
    _start(device)
    yield
    barrier()
    dist.destroy_process_group()


def _start(device: str) -> None:
    environment = os.environ
    environment.setdefault("RANK", environment.get("SLURM_PROCID", "0"))
    local_rank = int(environment.setdefault("LOCAL_RANK", environment.get("SLURM_LOCALID", "0")))
    if environment["RANK"] != "0":  # rank 0 speaks for all; `log_to` gives the others a file
        _redirect(os.devnull)
    if device.startswith("cuda"):
        found = torch.cuda.device_count()
        if local_rank >= found:
            raise EnvironmentFault(f"rank {local_rank} of this node has no GPU: {found} here. Start {found} ranks.")
        torch.cuda.set_device(local_rank)
    with _lost_peers():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")


def log_to(folder: Path) -> None:
    """Send what ranks other than 0 print to a private file of their own, `rank_00001.log`."""
    if is_main():
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / f"rank_{rank():05d}.log"
    file.touch(mode=0o600)
    _redirect(str(file))


def _redirect(file: str) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    target = os.open(file, os.O_WRONLY | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)


# ---------------------------------------------------------------- together


@contextmanager
def _lost_peers() -> Iterator[None]:
    """Around an exchange: it fails when another rank has ended."""
    try:
        yield
    except RuntimeError as fault:
        reason = " ".join(str(fault).split())[:200]
        raise PeerFault(f"rank {rank()} lost another rank, whose own message says why ({reason}).") from fault


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all ranks, in place; every rank gets the same bits."""
    if world_size() > 1:
        with _lost_peers():
            dist.all_reduce(values)
    return values


def sum_counts(*counts: int) -> list[int]:
    """Sums of whole numbers over all ranks, in one exchange."""
    return sum_over_ranks(torch.tensor(counts, dtype=torch.int64)).tolist()


def barrier() -> None:
    """Wait until every rank is here."""
    sum_counts(0)


def gather(data: bytes) -> list[bytes]:
    """Every rank's bytes, by rank."""
    sizes = [0] * world_size()
    sizes[rank()] = len(data)
    sizes = sum_counts(*sizes)
    everything = torch.zeros(sum(sizes), dtype=torch.uint8)
    start = sum(sizes[: rank()])
    everything[start : start + len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else 0
    pieces = sum_over_ranks(everything).split(sizes)
    return [piece.numpy().tobytes() for piece in pieces]


def gather_text(text: str) -> list[str]:
    """Every rank's text, by rank."""
    return [data.decode() for data in gather(text.encode())]


@contextmanager
def together() -> Iterator[None]:
    """Around work without exchanges: a fault of one rank ends it on all of them, with that rank's message and code.

    Raises:
        PeerFault: another rank's fault; its `exit_code` is that one's.
    """
    fault: MedtuneError | None = None
    try:
        yield
    except MedtuneError as own:
        fault = own
    told = gather_text(f"{fault.exit_code} {fault}" if fault else "")
    if fault:
        raise fault
    for number, text in enumerate(told):
        if text:
            code, _, message = text.partition(" ")
            raise PeerFault(f"rank {number}: {message}", int(code))


# ---------------------------------------------------------------- weights and gradients


def reduce_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over ranks; all ranks end with the same bits.

    A parameter that has no gradient here counts as zero; one that has none anywhere keeps none, as in one process.
    The sum is in fp32 at least. A rank that had nothing to do calls it like the others.

    Args:
        parameters: the trained ones, in the same order on every rank.
    """
    if world_size() == 1:
        return
    every = list(parameters)
    present = sum_counts(*(p.grad is not None for p in every))
    for bucket in _buckets([p for p, count in zip(every, present, strict=True) if count]):
        for p in bucket:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        gradients = [p.grad for p in bucket if p.grad is not None]
        wide = torch.promote_types(gradients[0].dtype, torch.float32)
        flat = sum_over_ranks(torch.cat([g.flatten().to(wide) for g in gradients]))
        for gradient, piece in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(piece.view_as(gradient))


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Runs of parameters of one dtype and device, of about `BUCKET` elements; a larger one is alone."""
    bucket: list[nn.Parameter] = []
    for p in parameters:
        fits = sum(q.numel() for q in bucket) + p.numel() <= BUCKET
        if bucket and not (fits and (p.dtype, p.device) == (bucket[0].dtype, bucket[0].device)):
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket


def check_same_weights(model: nn.Module) -> None:
    """Check, once, that all ranks begin with the same weights: they load the same files and draw from the same seed.

    Raises:
        EnvironmentFault: they do not: another base model on a node, or an initialisation that is not reproducible.
    """
    if world_size() == 1:
        return
    sums = [_checksum(p) for p in model.parameters()]
    told = gather(torch.stack(sums).numpy().tobytes())
    differing = [number for number, theirs in enumerate(told) if theirs != told[0]]
    if differing:
        raise EnvironmentFault(
            f"rank {differing[0]} starts from other weights than rank 0. Check that every node has the same base "
            "model and the same versions of torch, transformers and peft."
        )


def _checksum(parameter: nn.Parameter) -> torch.Tensor:
    """() int64 on the CPU: the sum of a parameter's bytes."""
    return parameter.detach().contiguous().flatten().view(torch.uint8).sum(dtype=torch.int64).cpu()

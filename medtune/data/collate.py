"""Lay samples end to end in one flat row, with what attention and the loss need to know about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

IGNORE_INDEX = -100


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass: N samples in a row of T tokens, of which P are predicted and trained on."""

    input_ids: torch.Tensor
    """(1, T) int64."""
    position_ids: torch.Tensor
    """(1, T) int64, from 0 in each sample."""
    cu_seqlens: torch.Tensor
    """(N + 1,) int32: where each sample begins, and T."""
    max_seqlen: int
    """Tokens of the longest sample."""
    predict_at: torch.Tensor
    """(P,) int64: positions whose next token is trained on."""
    targets: torch.Tensor
    """(P,) int64: those next tokens."""
    origins: tuple[str, ...]
    """Where each sample comes from."""
    good: torch.Tensor | None = None
    """(N,) bool: of labelled answers, the good ones."""
    mismatched: MicroBatch | None = None
    """Of labelled answers: the same prompts, each with the answer to another one."""

    def to(self, device: torch.device | str) -> MicroBatch:
        """Move the tensors to a device."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("input_ids", "position_ids", "cu_seqlens", "predict_at", "targets")
        }
        good = None if self.good is None else self.good.to(device, non_blocking=True)
        mismatched = None if self.mismatched is None else self.mismatched.to(device)
        return MicroBatch(max_seqlen=self.max_seqlen, origins=self.origins, good=good, mismatched=mismatched, **moved)


@dataclass(frozen=True)
class StepBatch:
    """One optimizer step of one rank."""

    micro_batches: tuple[MicroBatch, ...]
    num_units: int
    """Trained tokens over the micro-batches of this rank."""
    num_tokens: int
    num_samples: int


def flatten(samples: Sequence[Mapping[str, Any]]) -> MicroBatch:
    """Make one micro-batch of samples with `input_ids`, `labels` (IGNORE_INDEX where untrained) and `origin`.

    Labelled answers have `good` and `mismatched`, a sample, too.

    The one shift of the whole program is here: position t predicts token t + 1. A sample's first token is never a
    target, so no position predicts a token of the next sample.
    """
    lengths = np.array([len(sample["input_ids"]) for sample in samples], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    input_ids = np.concatenate([np.asarray(s["input_ids"], dtype=np.int64) for s in samples])
    labels = np.concatenate([np.asarray(s["labels"], dtype=np.int64) for s in samples])
    labels[starts[:-1]] = IGNORE_INDEX
    targets_at = np.flatnonzero(labels != IGNORE_INDEX)
    labelled = "good" in samples[0]
    positions = np.arange(len(input_ids)) - np.repeat(starts[:-1], lengths)
    return MicroBatch(
        input_ids=torch.from_numpy(input_ids)[None],
        position_ids=torch.from_numpy(positions)[None],
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)),
        max_seqlen=int(lengths.max()),
        predict_at=torch.from_numpy(targets_at - 1),
        targets=torch.from_numpy(labels[targets_at]),
        origins=tuple(str(s.get("origin", "")) for s in samples),
        good=torch.tensor([bool(s["good"]) for s in samples]) if labelled else None,
        mismatched=flatten([s["mismatched"] for s in samples]) if labelled else None,
    )


def collate_step(micro_batches: Sequence[Sequence[Mapping[str, Any]]]) -> StepBatch:
    """Make one optimizer step of lists of samples, one list for each micro-batch."""
    flat = tuple(flatten(samples) for samples in micro_batches if samples)
    return StepBatch(
        micro_batches=flat,
        num_units=sum(len(micro.targets) for micro in flat),
        num_tokens=sum(micro.input_ids.shape[1] for micro in flat),
        num_samples=sum(len(micro.origins) for micro in flat),
    )

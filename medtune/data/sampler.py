"""Which packs make up which optimizer step: a pure function of (seed, epoch, step), so any position can be seeked.

One item of the sampler is one optimizer step of one rank: a list of micro-batches, each a list of sample indices, or of
packs of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Packs = Sequence[Sequence[int]]
STEPS_SORTED_TOGETHER = 50


class StepSampler:
    """Cuts the packs of an epoch into optimizer steps.

    Args:
        packs: sample indices of each pack, in the first epoch.
        batch_size: packs in one micro-batch of one rank.
        accumulative_counts: micro-batches of one rank in one optimizer step.
        shuffle: a new order each epoch, from `seed + epoch`.
        seed: of the order.
        rank, world_size: this process and how many there are. The order is over all ranks together, so it does not
            depend on how many there are; each takes its share of a step's packs.
        epoch_packs: packs of an epoch, as many in each; None for the same ones. Asked once for each epoch, where
            `shuffle` is on.
        lengths: (n,) tokens of each sample; if given, the packs of a step are of similar length.
        whole_packs: a micro-batch is a list of packs, each a list of sample indices; else a list of sample indices.

    The last step of an epoch takes what is left. If that is too little for every rank, the others get an empty step
    (they still take part in the gradient exchange). No pack is dropped and none is taken twice.
    """

    def __init__(
        self,
        packs: Packs,
        batch_size: int,
        accumulative_counts: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        epoch_packs: Callable[[int], Packs] | None = None,
        lengths: np.ndarray | None = None,
        whole_packs: bool = False,
    ) -> None:
        self.packs = packs
        self.batch_size = batch_size
        self.packs_per_step = batch_size * accumulative_counts * world_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._epoch_packs = epoch_packs if shuffle else None
        self._planned = (0, packs)
        self._lengths = lengths
        self._whole_packs = whole_packs
        self.epoch = 0
        self.start = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the data."""
        return math.ceil(len(self.packs) / self.packs_per_step)

    def seek(self, epoch: int, step: int = 0) -> None:
        """Start the next iteration at optimizer step `step` of epoch `epoch`; costs nothing per skipped step."""
        self.epoch, self.start = epoch, step

    def packs_of(self, epoch: int) -> Packs:
        """Sample indices of each pack of an epoch."""
        if self._epoch_packs is None:
            return self.packs
        if self._planned[0] != epoch:
            self._planned = (epoch, self._epoch_packs(epoch))
        return self._planned[1]

    def order(self, epoch: int) -> np.ndarray:
        """Order of all packs in an epoch."""
        if not self.shuffle:
            return np.arange(len(self.packs))
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.packs))
        return order if self._lengths is None else self._by_length(order, self.packs_of(epoch), rng)

    def _by_length(self, order: np.ndarray, packs: Packs, rng: np.random.Generator) -> np.ndarray:
        """The order with packs of like length in the same step, and the steps mixed; the last one stays the last."""
        assert self._lengths is not None
        tokens = np.array([self._lengths[list(packs[pack])].sum() for pack in order.tolist()])
        block = np.arange(len(order)) // (self.packs_per_step * STEPS_SORTED_TOGETHER)
        order = order[np.lexsort((tokens, block))]
        num_whole = len(order) // self.packs_per_step
        whole = order[: num_whole * self.packs_per_step].reshape(num_whole, self.packs_per_step)
        return np.concatenate([rng.permutation(whole).ravel(), order[num_whole * self.packs_per_step :]])

    def step_packs(self, epoch: int, step: int) -> np.ndarray:
        """Indices of the packs of one optimizer step, over all ranks."""
        begin = step * self.packs_per_step
        return self.order(epoch)[begin : begin + self.packs_per_step]

    def __len__(self) -> int:
        return self.steps_per_epoch - self.start

    def __iter__(self) -> Iterator[list[list[Any]]]:
        order, packs = self.order(self.epoch), self.packs_of(self.epoch)
        for step in range(self.start, self.steps_per_epoch):
            begin = step * self.packs_per_step
            mine = order[begin : begin + self.packs_per_step][self.rank :: self.world_size]
            micro_batches = [mine[i : i + self.batch_size] for i in range(0, len(mine), self.batch_size)]
            members = [[list(packs[pack]) for pack in micro.tolist()] for micro in micro_batches]
            yield members if self._whole_packs else [[s for pack in micro for s in pack] for micro in members]

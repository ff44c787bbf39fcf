"""How long it takes to stand at step 100,000 of a set of a million rows, and the first batch from there.

    python benchmarks/seek.py [--count 1000000] [--step 100000]

Packed rows, shuffled, with 0 and 2 data workers; the median of 5. Beside it the same for step 0: seeking is free.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
from campaign import parser
from torch.utils.data import DataLoader

from medtune.data.packing import plan_packs
from medtune.data.sampler import StepSampler


class Rows:
    """Sample numbers instead of samples."""

    def __getitem__(self, indices: list[list[int]]) -> list[list[int]]:
        return indices


def measure(count: int, step: int, num_workers: int) -> tuple[int, float]:
    """Number of steps in an epoch and seconds from `seek` to the first batch."""
    lengths = np.random.default_rng(0).integers(20, 1000, count)
    packs = plan_packs(lengths.tolist(), 2048)
    sampler = StepSampler(packs, batch_size=1, seed=1)
    loader = DataLoader(Rows(), batch_sampler=sampler, collate_fn=lambda batch: batch, num_workers=num_workers)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        sampler.seek(3, step)
        next(iter(loader))
        seconds.append(time.perf_counter() - began)
    return sampler.steps_per_epoch, statistics.median(seconds)


def main(words: list[str] | None = None) -> int:
    """Measure."""
    made = parser(__doc__ or "", 1_000_000)
    made.add_argument("--step", type=int, default=100_000)
    arguments = made.parse_args(words)
    worst = 0.0
    for num_workers in (0, 2):
        for step in (0, arguments.step):
            steps, seconds = measure(arguments.count, step, num_workers)
            worst = max(worst, seconds)
            print(f"{arguments.count} rows, {steps} steps, {num_workers} workers: at step {step} in {seconds:.3f} s")
    return 0 if worst < 2 else 1


if __name__ == "__main__":
    sys.exit(main())

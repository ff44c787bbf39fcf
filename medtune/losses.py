"""Losses as pure functions on tensors. A loss returns a sum; the train loop divides by the step's units."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def token_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum of the cross entropy over tokens, in nats, computed in fp32.

    Args:
        logits: (N, V), one row for each position that predicts a trained token.
        targets: (N,) int64, the token that each row predicts. The shift was made in `data.collate`.

    Returns:
        () fp32. With N = 0 it is 0 and its gradient is 0.
    """
    return F.cross_entropy(logits.float(), targets, reduction="sum")

"""Muon for matrices and AdamW for the rest, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class MuonWithAdamW(torch.optim.Optimizer):
    """torch's Muon (Jordan et al. 2024) over matrices, torch's AdamW over everything else.

    Args:
        matrices: parameter groups of 2D parameters.
        rest: groups of embeddings, the head and vectors, for which Muon's authors advise AdamW.
        lr: where a group has none of its own. Muon's step is scaled to AdamW's root mean square ("match_rms_adamw",
            Moonlight, arXiv 2502.16982), so that both take the same rate.
        betas: AdamW's; the first is Muon's momentum.
        weight_decay: where a group has none of its own.
    """

    def __init__(
        self,
        matrices: list[dict[str, Any]],
        rest: list[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            muon = torch.optim.Muon(matrices, lr, weight_decay, betas[0], adjust_lr_fn="match_rms_adamw")
            self.parts.append(muon)
        if rest:
            self.parts.append(torch.optim.AdamW(rest, lr, betas, weight_decay=weight_decay))
        groups = [group for part in self.parts for group in part.param_groups]
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": weight_decay})
        self._share()

    def _share(self) -> None:
        """Let the parts work on this optimizer's own groups and state."""
        first = 0
        for part in self.parts:
            size = len(part.param_groups)
            part.param_groups = self.param_groups[first : first + size]
            part.state = self.state
            first += size

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both."""
        loss = closure() if closure is not None else None
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both."""
        super().load_state_dict(state_dict)
        self._share()

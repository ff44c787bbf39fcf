"""The optimizer's wrapper: backward, gradient clipping and the step, once per optimizer step."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.optim import OptimWrapper

from medtune.build import checked_by
from medtune.errors import ConfigError
from medtune.models.load import DtypeName


def _precheck_clip(clip_grad: dict[str, Any] | None = None, **_: Any) -> None:
    if clip_grad is not None and (set(clip_grad) != {"max_norm"} or not clip_grad["max_norm"] > 0):
        raise ConfigError(f"clip_grad: wanted dict(max_norm=...) above 0, or None for no clipping, got {clip_grad}")


@checked_by(_precheck_clip)
class StepOptimWrapper(OptimWrapper):
    """mmengine's wrapper without its accumulation: the train loop decides when a step is complete.

    Args:
        optimizer: any torch optimizer.
        clip_grad: `dict(max_norm=1.0)` clips the global norm of the gradient; None does not.
        dtype: the forward pass's dtype; "fp16" turns loss scaling on.
        loss_scale: "dynamic", or a fixed factor, under fp16.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        clip_grad: dict[str, Any] | None = None,
        dtype: DtypeName = "auto",
        loss_scale: str | float = "dynamic",
    ) -> None:
        super().__init__(optimizer, clip_grad=clip_grad)
        self.max_norm = float(clip_grad["max_norm"]) if clip_grad else None
        device = self.param_groups[0]["params"][0].device.type
        fixed: dict[str, Any] = (
            {} if loss_scale == "dynamic" else {"init_scale": float(loss_scale), "growth_interval": 10**9}
        )
        self.scaler = torch.amp.GradScaler(device, enabled=_is_fp16(dtype, device), **fixed)
        self.scaler.scale(torch.zeros((), device=device))  # begins its state; a rank may have nothing to do in step 1

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """Add the gradient of a micro-batch's share of the step's loss."""
        self.scaler.scale(loss).backward(**kwargs)

    def clip(self) -> torch.Tensor:
        """Clip the gradient. Returns its global norm before that, () fp32."""
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        if self.max_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_norm, norm)
        return norm

    def step(self, **kwargs: Any) -> None:
        """Step after `clip`, and clear the gradient. Under fp16 a gradient that overflowed is skipped."""
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


def _is_fp16(dtype: str, device: str) -> bool:
    from medtune.models.load import pick_dtype

    return pick_dtype(dtype, device) is torch.float16

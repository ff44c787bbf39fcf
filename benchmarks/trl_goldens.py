"""Losses and gradients of TRL's preference trainers on fixed numbers, for tests/test_preference_losses.py.

Run it in an environment with TRL 1.16 (`pip install --no-deps trl==1.16.0` beside medtune's packages):

    python benchmarks/trl_goldens.py > tests/models/trl_goldens.json

TRL's own methods compute every number. A stand-in for the model returns the log-probabilities below, token by token.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
import trl
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

BETA, SMOOTHING, GAMMA, WEIGHTS = 0.3, 0.15, 1.4, (1.5, 0.5)
PAIRS, PROMPT, LENGTHS = 4, 3, [5, 2, 7, 4, 3, 6, 2, 7]  # tokens of each answer: first the chosen ones
LOSSES = "sigmoid hinge ipo exo_pair nca_pair robust bco_pair sppo_hard apo_zero apo_down".split()  # noqa: SIM905


def log_probs(phase: float) -> torch.Tensor:
    """(N, T - 1) of each predicted token; 0 outside the answer."""
    width = PROMPT + max(LENGTHS) - 1
    rows = torch.zeros(len(LENGTHS), width, dtype=torch.float64)
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            rows[row, PROMPT - 1 + t] = -1.2 - math.sin(phase + 1.7 * row + 0.9 * t)
    return rows


def masks() -> dict[str, torch.Tensor]:
    """What a TRL batch holds of the answers."""
    width = PROMPT + max(LENGTHS)
    mask = torch.zeros(len(LENGTHS), width, dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        mask[row, PROMPT : PROMPT + length] = 1
    return {"input_ids": torch.ones_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask}


def trainer(**settings: Any) -> Any:
    """What TRL's methods ask of `self`."""
    accelerator = MagicMock(device="cpu")
    accelerator.gather_for_metrics.side_effect = accelerator.gather.side_effect = lambda x: x
    return SimpleNamespace(
        accelerator=accelerator,
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        beta=BETA,
        label_smoothing=SMOOTHING,
        use_weighting=False,
        calculate_KL=True,
        _total_train_tokens=0,
        _tp_size=1,
        _metrics=defaultdict(lambda: defaultdict(list)),
        **settings,
    )


def dpo(kind: str) -> dict[str, Any]:
    """Mean loss over pairs, and its gradient by each answer's log-probability."""
    policy, reference = log_probs(0.0).requires_grad_(), log_probs(0.6).sum(1)
    inputs = masks() | {"ref_chosen_logps": reference[:PAIRS], "ref_rejected_logps": reference[PAIRS:]}
    own = trainer(loss_types=[kind], loss_weights=[1.0])
    loss = DPOTrainer._compute_loss(own, lambda **_: output(policy), inputs, False)
    loss.backward()
    return {"loss": loss.item(), "gradient": policy.grad[:, PROMPT - 1].tolist()}


def kto() -> dict[str, Any]:
    """Mean loss over answers; the rows' own log ratios, shifted, stand in for those of mismatched answers."""
    policy, reference = log_probs(0.0).requires_grad_(), log_probs(0.6).sum(1)
    good = [True, False, True, True, False, False, True, False]
    shifted = (log_probs(0.3).sum(1), log_probs(0.1).sum(1))
    inputs = masks() | {"label": torch.tensor(good), "ref_logps": reference, "ref_KL_logps": shifted[1]}
    own = trainer(loss_type="kto", desirable_weight=WEIGHTS[0], undesirable_weight=WEIGHTS[1])
    own._compute_kl_logps = lambda *_: shifted[0]
    loss = KTOTrainer._compute_loss(own, lambda **_: output(policy), inputs, False)
    loss.backward()
    told = {"good": good, "policy_kl": shifted[0].tolist(), "reference_kl": shifted[1].tolist()}
    return {**told, "loss": loss.item(), "gradient": policy.grad[:, PROMPT - 1].tolist()}


def without_reference() -> dict[str, Any]:
    """ORPO's odds-ratio part and SimPO, on mean log-probabilities."""
    means = (log_probs(0.0).sum(1) / torch.tensor(LENGTHS)).requires_grad_()
    own = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu"), beta=BETA, alpha=0.0, loss_type="simpo", simpo_gamma=GAMMA,
        label_smoothing=SMOOTHING,
    )  # fmt: skip
    told = {}
    for name, losses in (
        ("orpo", -ORPOTrainer.odds_ratio_loss(own, means[:PAIRS], means[PAIRS:])[0]),
        ("simpo", CPOTrainer.cpo_loss(own, means[:PAIRS], means[PAIRS:])[0]),
    ):
        (gradient,) = torch.autograd.grad(losses.mean(), means, retain_graph=True)
        told[name] = {"loss": losses.mean().item(), "gradient": gradient.tolist()}
    return told


def output(policy: torch.Tensor) -> Any:
    """What TRL asks of a model's output; all but the log-probabilities goes into its log alone."""
    nothing = torch.zeros_like(policy)
    return SimpleNamespace(log_probs=policy, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


def main() -> None:
    """Print the numbers as JSON."""
    told = {
        "trl": trl.__version__,
        "settings": {"beta": BETA, "label_smoothing": SMOOTHING, "gamma": GAMMA, "weights": WEIGHTS},
        "num_tokens": LENGTHS,
        "policy": log_probs(0.0).sum(1).tolist(),
        "reference": log_probs(0.6).sum(1).tolist(),
        "dpo": {kind: dpo(kind) for kind in LOSSES},
        "kto": kto(),
        **without_reference(),
    }
    json.dump(told, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()

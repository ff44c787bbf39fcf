"""Losses on pairs of answers, as pure functions on tensors: reward ranking, the DPO family, KTO, ORPO, SimPO.

Every loss is summed over its units (the pair; for KTO the answer); the train loop divides by the units of the step.
Log-probabilities are natural, summed over an answer's tokens, in fp32. `ratio` is log policy minus log reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F

DpoLoss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "robust",
    "kto_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "exo_pair",
    "apo_zero",
    "apo_down",
]


def answer_log_probs(
    logits: torch.Tensor, targets: torch.Tensor, answer_of: torch.Tensor, num_answers: int
) -> torch.Tensor:
    """Log-probability of each answer, summed over its tokens.

    Args:
        logits: (P, V), one row for each position that predicts a trained token.
        targets: (P,) int64, those tokens.
        answer_of: (P,) int64, the answer, 0 to `num_answers` - 1, that each token belongs to.
        num_answers: N.

    Returns:
        (N,) fp32; 0 for an answer without a token.
    """
    log_probs = -F.cross_entropy(logits.float(), targets, reduction="none")
    return torch.zeros(num_answers, device=logits.device).index_add(0, answer_of, log_probs)


def ranking_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    margin: torch.Tensor | None = None,
    kind: Literal["ranking", "focal"] = "ranking",
    centre: float = 0.0,
) -> torch.Tensor:
    """Bradley-Terry loss of a reward model, -log sigmoid(chosen - rejected - margin), summed over pairs.

    Args:
        chosen, rejected: (N,) scores of the better and the worse answer.
        margin: (N,) how far apart they should be (Llama 2: Touvron et al. 2023, arXiv 2307.09288).
        kind: "focal" weighs a pair by (1 - 2 max(p - 1/2, 0))^2, p the probability given to the right order, so that
            pairs already told apart count little (InternLM2: Cai et al. 2024, arXiv 2403.17297).
        centre: weight of (chosen + rejected)^2, which keeps scores about 0 (Eisenstein et al. 2023, arXiv 2312.09244).

    Source: Ouyang et al. 2022, arXiv 2203.02155.
    """
    difference = (chosen - rejected).float()
    difference = difference if margin is None else difference - margin
    loss = -F.logsigmoid(difference)
    if kind == "focal":
        loss = loss * (1 - 2 * F.relu(difference.sigmoid() - 0.5)) ** 2
    if centre:
        loss = loss + centre * (chosen + rejected).float() ** 2
    return loss.sum()


def _robust(chosen: torch.Tensor, rejected: torch.Tensor, beta: float, smoothing: float) -> torch.Tensor:
    scaled = beta * (chosen - rejected)
    return (smoothing * F.logsigmoid(-scaled) - (1 - smoothing) * F.logsigmoid(scaled)) / (1 - 2 * smoothing)


def _sigmoid(chosen: torch.Tensor, rejected: torch.Tensor, beta: float, smoothing: float) -> torch.Tensor:
    scaled = beta * (chosen - rejected)
    return -(1 - smoothing) * F.logsigmoid(scaled) - smoothing * F.logsigmoid(-scaled)


def _exo_pair(chosen: torch.Tensor, rejected: torch.Tensor, beta: float, smoothing: float) -> torch.Tensor:
    scaled = beta * (chosen - rejected)
    kept, flipped = math.log1p(-smoothing), math.log(smoothing)
    won, lost = F.logsigmoid(scaled), F.logsigmoid(-scaled)
    return won.exp() * (won - kept) + lost.exp() * (lost - flipped)


def _kto_pair(chosen: torch.Tensor, rejected: torch.Tensor, beta: float, smoothing: float) -> torch.Tensor:
    """KTO on pairs; each side's reference point is the other side's mean ratio, not below 0."""
    chosen_kl, rejected_kl = chosen.mean().clamp(min=0), rejected.mean().clamp(min=0)
    return 2 - (beta * (chosen - rejected_kl)).sigmoid() - (beta * (chosen_kl - rejected)).sigmoid()


# name -> loss of each pair, (N,), from the (N,) ratios of chosen and rejected, beta and label smoothing
PAIR_LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor, float, float], torch.Tensor]] = {
    "sigmoid": _sigmoid,  # Rafailov et al. 2023, arXiv 2305.18290; smoothing: Mitchell 2023, "conservative DPO"
    "hinge": lambda c, r, beta, _: F.relu(1 - beta * (c - r)),  # SLiC: Zhao et al. 2023, arXiv 2305.10425
    "ipo": lambda c, r, beta, _: (c - r - 1 / (2 * beta)) ** 2,  # Azar et al. 2023, arXiv 2310.12036
    "robust": _robust,  # Chowdhury et al. 2024, arXiv 2403.00409
    "kto_pair": _kto_pair,  # Ethayarajh et al. 2024, arXiv 2402.01306
    "nca_pair": lambda c, r, beta, _: (  # Chen et al. 2024, arXiv 2402.05369
        -F.logsigmoid(beta * c) - 0.5 * F.logsigmoid(-beta * c) - 0.5 * F.logsigmoid(-beta * r)
    ),
    "bco_pair": lambda c, r, beta, _: -F.logsigmoid(beta * c) - F.logsigmoid(-beta * r),  # arXiv 2404.04656
    "sppo_hard": lambda c, r, beta, _: (c - 0.5 / beta) ** 2 + (r + 0.5 / beta) ** 2,  # arXiv 2405.00675
    "exo_pair": _exo_pair,  # Ji et al. 2024, arXiv 2402.00856; needs smoothing above 0
    "apo_zero": lambda c, r, beta, _: 1 - (beta * c).sigmoid() + (beta * r).sigmoid(),  # arXiv 2408.06266
    "apo_down": lambda c, r, beta, _: (beta * c).sigmoid() + 1 - (beta * (c - r)).sigmoid(),
}
PER_TOKEN = frozenset({"ipo"})
"""Losses whose ratios are means over an answer's tokens: a squared loss would grow with the answer's length."""


def dpo_loss(
    chosen_ratio: torch.Tensor,
    rejected_ratio: torch.Tensor,
    kind: DpoLoss = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """A loss of the DPO family, summed over pairs.

    Args:
        chosen_ratio, rejected_ratio: (N,) log policy minus log reference of each answer; the mean over its tokens for
            the losses in `PER_TOKEN`.
        kind: one of `PAIR_LOSSES`, which name their sources.
        beta: strength of the pull to the reference; tau in IPO.
        label_smoothing: probability that a pair is labelled the wrong way round: sigmoid, robust, exo_pair.
    """
    return PAIR_LOSSES[kind](chosen_ratio.float(), rejected_ratio.float(), beta, label_smoothing).sum()


def kto_loss(
    ratio: torch.Tensor,
    is_good: torch.Tensor,
    reference_point: torch.Tensor,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> torch.Tensor:
    """Kahneman-Tversky optimisation on single answers marked good or bad, summed over answers.

    Args:
        ratio: (N,) log policy minus log reference of each answer.
        is_good: (N,) bool.
        reference_point: () estimate of the KL divergence from the reference, at least 0, without gradient.

    Source: Ethayarajh et al. 2024, arXiv 2402.01306, equation 8.
    """
    gain = (beta * torch.where(is_good, ratio - reference_point, reference_point - ratio).float()).sigmoid()
    weight = torch.where(is_good, desirable_weight, undesirable_weight)
    return (weight * (1 - gain)).sum()


def orpo_loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Odds-ratio part of ORPO, summed over pairs; the stage adds the cross entropy of the chosen answer.

    Args:
        chosen, rejected: (N,) mean log-probability of an answer's tokens, below 0.

    Source: Hong et al. 2024, arXiv 2403.07691: -log sigmoid(log odds(chosen) - log odds(rejected)).
    """
    chosen, rejected = chosen.float(), rejected.float()
    log_odds = chosen - rejected - (_log1mexp(chosen) - _log1mexp(rejected))
    return -F.logsigmoid(log_odds).sum()


def _log1mexp(x: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(x)) for x < 0, exact at both ends (Maechler 2012)."""
    x = x.clamp(max=-1e-7)
    return torch.where(x > -math.log(2), torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


def simpo_loss(
    chosen: torch.Tensor, rejected: torch.Tensor, beta: float = 2.0, margin: float = 1.0, label_smoothing: float = 0.0
) -> torch.Tensor:
    """SimPO, which needs no reference, summed over pairs: -log sigmoid(beta (chosen - rejected) - margin).

    Args:
        chosen, rejected: (N,) mean log-probability of an answer's tokens.
        margin: the paper's gamma.

    Source: Meng et al. 2024, arXiv 2405.14734.
    """
    scaled = beta * (chosen - rejected).float() - margin
    return (-(1 - label_smoothing) * F.logsigmoid(scaled) - label_smoothing * F.logsigmoid(-scaled)).sum()

"""Clip-Cov and KL-Cov (Cui et al. 2025, The Entropy Mechanism of RL for Reasoning Language Models, arXiv 2505.22617).

Entropy falls through the tokens whose covariance of log-probability and advantage is high:

    Cov_t = (log pi(o_t) - mean log pi) (A_t - mean A),   means over the tokens of the step

Clip-Cov takes the gradient from a few of them, drawn from a band [cov_low, cov_high]; KL-Cov holds the highest ones back:
L_t = -r_t A_t + cov_kl (r_t - 1 - log r_t), the last an estimate of KL(pi_old || pi). (The authors' code takes |log r_t|, whose slope at
r = 1 is the sign of a rounding error where engine and trainer differ by one.) Both choose by the log-probabilities of the step's
beginning, so that the parts of a step choose together; the authors' code chooses within each part, which is the same for a step of one.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from stages.rl.objectives.parts import Loss, Part, TokenLosses, Whole, over_tokens, surrogate, token_ratio, with_kl
from stages.rl.params import RlParams

Select = Callable[[Tensor, RlParams, torch.Generator], Tensor]


def covariances(logp_N: Tensor, advantages_N: Tensor) -> Tensor:
    """Of N tokens."""
    return (logp_N - logp_N.mean()) * (advantages_N - advantages_N.mean())


def select_for_clip(covariances_N: Tensor, params: RlParams, generator: torch.Generator) -> Tensor:
    """bool [N]: floor(cov_share N) tokens at most, at least 1, drawn evenly from those in the band."""
    band = ((covariances_N >= params.cov_low) & (covariances_N <= params.cov_high)).nonzero()[:, 0]
    count = max(1, int(params.cov_share * len(covariances_N)))
    drawn = band[torch.randperm(len(band), generator=generator)[:count]]
    return torch.zeros_like(covariances_N, dtype=torch.bool).index_fill(0, drawn, True)


def select_for_kl(covariances_N: Tensor, params: RlParams, generator: torch.Generator) -> Tensor:
    """bool [N]: the floor(cov_share N) highest, at least 1."""
    highest = covariances_N.topk(min(len(covariances_N), max(1, int(params.cov_share * len(covariances_N))))).indices
    return torch.zeros_like(covariances_N, dtype=torch.bool).index_fill(0, highest, True)


def clip_cov(part: Part, whole: Whole, params: RlParams) -> Loss:
    """DAPO's loss; a chosen token counts with 0."""
    assert part.selected_BT is not None
    losses = surrogate(part, params, token_ratio(part))
    kept_BT = (~part.selected_BT).to(losses.values_BT.dtype)
    return over_tokens(part, TokenLosses(losses.values_BT * kept_BT, losses.binds_BT | part.selected_BT), whole.tokens)


def kl_cov(part: Part, whole: Whole, params: RlParams) -> Loss:
    """-r A without any clip; a chosen token also pays for moving."""
    assert part.selected_BT is not None
    ratio_BT = token_ratio(part)
    moved_BT = (ratio_BT - 1 - (part.logp_BT - part.old_BT)) * part.selected_BT
    values_BT = with_kl(part, params, -ratio_BT * part.advantage_B[:, None] + params.cov_kl * moved_BT)
    return over_tokens(part, TokenLosses(values_BT, torch.zeros_like(part.selected_BT)), whole.tokens)

"""What an objective is computed from, and the surrogate that most of them share."""

from typing import NamedTuple

import torch
from torch import Tensor

from stages.rl.params import RlParams

EPSILON = 1e-4  # beside a standard deviation, so that a group of nearly equal rewards does not get huge advantages


class Part(NamedTuple):
    """Whole groups of a step, G rows each, one group after another; B rows of at most T tokens."""

    logp_BT: Tensor  # of the policy that learns, with gradient
    old_BT: Tensor  # before the step's first update
    mask_BT: Tensor  # 1 on the response tokens that count
    advantage_B: Tensor
    reward_B: Tensor
    success_B: Tensor  # bool: a right answer
    weight_BT: Tensor | None = None  # truncated importance weights of the trainer over the sampler, without gradient
    reference_BT: Tensor | None = None  # log-probabilities of the frozen reference
    selected_BT: Tensor | None = None  # bool: the tokens that clip_cov or kl_cov chose
    advantage_BT: Tensor | None = None  # of each token, in place of its answer's (credit.py)
    beside_BTL: Tensor | None = None  # log-probabilities with gradient: of the levels of relevance, then of answers' tokens
    example_BT: Tensor | None = None  # 1 on the tokens that are copied (positive.py)
    entropy_BT: Tensor | None = None  # of the distributions that the tokens were drawn from, without gradient


class Whole(NamedTuple):
    """The whole step over all processes, divided by their number, because gradients are averaged over processes."""

    tokens: float
    rows: float


class Loss(NamedTuple):
    value: Tensor
    clipped: Tensor  # share of tokens where the clip binds


class TokenLosses(NamedTuple):
    values_BT: Tensor
    binds_BT: Tensor  # bool


def surrogate(part: Part, params: RlParams, ratio: Tensor) -> TokenLosses:
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) of each token (PPO, arXiv 1707.06347, eq. 7). ratio: [B, T] or [B, 1].

    Where the clipped term is the smaller one, the token has no gradient: a ratio is clipped where the advantage has pushed it too far,
    never on its way back.
    """
    gain = part.advantage_B[:, None] if part.advantage_BT is None else part.advantage_BT
    plain, clipped = ratio * gain, ratio.clamp(1 - params.clip_low, 1 + params.clip_high) * gain
    return TokenLosses(with_kl(part, params, -torch.minimum(plain, clipped)), (clipped < plain).expand_as(part.mask_BT))


def with_kl(part: Part, params: RlParams, losses_BT: Tensor) -> Tensor:
    """The importance weight times each loss, and params.kl times the KL to the reference (estimator k3 of Schulman, as GRPO has it)."""
    if part.weight_BT is not None:
        losses_BT = losses_BT * part.weight_BT
    if part.reference_BT is not None:
        difference = part.reference_BT - part.logp_BT
        losses_BT = losses_BT + params.kl * (torch.exp(difference) - difference - 1)
    return losses_BT


def over_tokens(part: Part, losses: TokenLosses, tokens: float) -> Loss:
    """Sum over tokens / `tokens`."""
    return Loss((losses.values_BT * part.mask_BT).sum() / tokens, clipped_share(part, losses.binds_BT))


def over_rows(part: Part, losses: TokenLosses, rows: float) -> Loss:
    """Sum over responses of the mean over their tokens / `rows`."""
    means_B = (losses.values_BT * part.mask_BT).sum(-1) / part.mask_BT.sum(-1).clamp_min(1)
    return Loss(means_B.sum() / rows, clipped_share(part, losses.binds_BT))


def clipped_share(part: Part, binds_BT: Tensor) -> Tensor:
    return ((binds_BT * part.mask_BT).sum() / part.mask_BT.sum().clamp_min(1)).detach()


def token_ratio(part: Part) -> Tensor:
    return torch.exp(part.logp_BT - part.old_BT)

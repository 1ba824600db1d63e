"""DAPO's loss (Yu et al. 2025, arXiv 2503.14476): group-normalised advantages, clip-higher, token-level mean."""

from typing import NamedTuple

import torch
from torch import Tensor


def advantages(rewards_PG: Tensor) -> Tensor:
    """(R - mean) / std within each group (sample standard deviation, as GRPO): [P, G] -> [P, G]."""
    centred = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
    # 1e-4, so that a group of nearly equal rewards does not get huge advantages.
    return centred / (rewards_PG.std(dim=1, keepdim=True) + 1e-4)


def has_reward_variance(rewards_PG: Tensor, tolerance: float) -> Tensor:
    """Which groups have reward variance: bool [P]. A tolerance, because sums of floats are never compared with == 0."""
    return rewards_PG.std(dim=1) > tolerance


class Loss(NamedTuple):
    value: Tensor
    clipped: Tensor  # share of tokens where the clip binds


def dapo_loss(
    logp_BT: Tensor, old_BT: Tensor, advantage_B: Tensor, mask_BT: Tensor, low: float, high: float, tokens: Tensor | float
) -> Loss:
    """-sum over tokens of min(r A, clip(r, 1 - low, 1 + high) A), divided by `tokens` (all response tokens of the step, not of the part).

    logp_BT, old_BT: log-probabilities under the policy and the sampler; mask_BT: 1 on response tokens.
    """
    ratio = torch.exp(logp_BT - old_BT)
    gain = advantage_B[:, None]
    plain, clipped = ratio * gain, ratio.clamp(1 - low, 1 + high) * gain
    # The minimum: a ratio is clipped where the advantage has pushed it too far, never on its way back (PPO, arXiv 1707.06347, eq. 7).
    value = -(torch.minimum(plain, clipped) * mask_BT).sum() / tokens
    # Where the clipped term is the smaller one, the token has no gradient.
    binds = ((clipped < plain) * mask_BT).sum() / mask_BT.sum().clamp_min(1)
    return Loss(value, binds.detach())

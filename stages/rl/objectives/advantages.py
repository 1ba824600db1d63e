"""Advantages from rewards: [P, G] -> [P, G], P groups of G answers to one slate each.

Groups are those of a slate, whatever its prompt says: two slates with one text would have different targets.
"""

from collections.abc import Sequence

from torch import Tensor

from stages.rl.objectives.parts import EPSILON


def centred(rewards_PG: Tensor, batch_std: float) -> Tensor:
    """R - mean of the group (Dr. GRPO, Liu et al. 2025, arXiv 2503.20783: the division favours slates that are nearly always right)."""
    return rewards_PG - rewards_PG.mean(dim=1, keepdim=True)


def group_normalised(rewards_PG: Tensor, batch_std: float = 0.0) -> Tensor:
    """(R - mean) / std of the group, sample standard deviation (GRPO, Shao et al. 2024, arXiv 2402.03300, section 4.1.2)."""
    return centred(rewards_PG, batch_std) / (rewards_PG.std(dim=1, keepdim=True) + EPSILON)


def batch_normalised(rewards_PG: Tensor, batch_std: float) -> Tensor:
    """(R - mean of the group) / std of all rewards of the step (Lite PPO, Liu et al. 2025, arXiv 2508.08221)."""
    return centred(rewards_PG, batch_std) / (batch_std + EPSILON)


def gdpo_sums(components_KPG: Tensor, weights: Sequence[float]) -> Tensor:
    """sum over k of w_k (r_k - mean_k) / std_k, each normalised in its group (GDPO, Liu et al. 2026, arXiv 2601.05242).

    To be normalised over the batch (gdpo_normalised). A sum of rewards hides which of them differ: (1, 0) and (0, 1) are the same to it.
    """
    means = components_KPG.mean(dim=2, keepdim=True)
    parts = (components_KPG - means) / (components_KPG.std(dim=2, keepdim=True) + EPSILON)
    return (parts * parts.new_tensor(weights)[:, None, None]).sum(0)


def gdpo_normalised(sums_PG: Tensor, batch_mean: float, batch_std: float) -> Tensor:
    """(A - mean) / std over the whole step."""
    return (sums_PG - batch_mean) / (batch_std + EPSILON)


def has_reward_variance(rewards_PG: Tensor, tolerance: float) -> Tensor:
    """Which groups have reward variance: bool [P]. A tolerance, because sums of floats are never compared with == 0."""
    return rewards_PG.std(dim=1) > tolerance

"""LiPO-lambda (Liu et al. 2024, LiPO: Listwise Preference Optimization through Learning-to-Rank, arXiv 2402.01878).

    L = mean over slates of sum_{R_i > R_j} D_ij log(1 + exp(-(s_i - s_j))),   D_ij = |2^psi_i - 2^psi_j| |1 / D(tau_i) - 1 / D(tau_j)|

with s_i = lipo_beta log(pi(o_i) / pi_old(o_i)), tau the answer's rank by s within its group, D(tau) = log2(1 + tau), and psi the reward
scaled to [0, 1] within the group. The reference is the policy at the step's beginning, or the frozen one with rl.kl > 0. At the first
update all s are 0 but for rounding: scores nearer than 0.001 count as equal, and rank as they stand in the group.
"""

import torch

from stages.rl.objectives.parts import Loss, Part, Whole
from stages.rl.params import RlParams


def lipo(part: Part, whole: Whole, params: RlParams) -> Loss:
    reference_BT = part.old_BT if part.reference_BT is None else part.reference_BT
    scores_PG = params.lipo_beta * ((part.logp_BT - reference_BT) * part.mask_BT).sum(-1).view(-1, params.group)
    rewards_PG = part.reward_B.view(-1, params.group)
    low, high = rewards_PG.amin(1, keepdim=True), rewards_PG.amax(1, keepdim=True)
    gains_PG = 2 ** ((rewards_PG - low) / (high - low).clamp_min(1e-12))
    ranks_PG = scores_PG.detach().round(decimals=3).argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True) + 1
    discounts_PG = 1 / torch.log2(1 + ranks_PG)
    weights_PGG = (gains_PG[:, :, None] - gains_PG[:, None]).abs() * (discounts_PG[:, :, None] - discounts_PG[:, None]).abs()
    better_PGG = rewards_PG[:, :, None] > rewards_PG[:, None]
    losses_PGG = torch.nn.functional.softplus(-(scores_PG[:, :, None] - scores_PG[:, None])) * weights_PGG * better_PGG
    return Loss(losses_PGG.sum() / (whole.rows / params.group), torch.zeros((), device=scores_PG.device))

"""GSPO (Zheng et al. 2025, Group Sequence Policy Optimization, arXiv 2507.18071, eq. 5 and 7): a ratio an answer, as a reward an answer.

    s_i = exp(1 / |o_i|  sum_t log r_it),   L = -1 / N  sum_i min(s_i A_i, clip(s_i, 1 - eps_low, 1 + eps_high) A_i)

The ratio is a geometric mean over tokens and stays near 1: the paper clips at 3e-4 and 4e-4.
"""

import torch

from stages.rl.objectives.parts import Loss, Part, Whole, over_rows, surrogate
from stages.rl.params import RlParams


def gspo(part: Part, whole: Whole, params: RlParams) -> Loss:
    lengths_B = part.mask_BT.sum(-1).clamp_min(1)
    mean_B = ((part.logp_BT - part.old_BT) * part.mask_BT).sum(-1) / lengths_B
    losses = surrogate(part, params, torch.exp(mean_B)[:, None])
    return over_rows(part, losses._replace(values_BT=losses.values_BT.expand_as(part.mask_BT)), whole.rows)

"""DisCO (Li et al. 2025, Discriminative Constrained Optimization, arXiv 2505.12366): raise right answers above wrong ones, hard ones most.

    max  mean over slates of [ mean_{o right} s(o) - tau log mean_{o wrong} exp(s(o) / tau) ]   subject to KL(pi_old || pi) <= delta

with the score s(o) = 1 / |o| sum_t log pi(o_t), and the constraint as a penalty disco_beta max(KL - delta, 0)^2 on the KL estimated from
the samples. Slates whose answers are all right or all wrong do not count. A group's weight does not depend on its share of right answers,
as it does under GRPO. The KL is that of the groups of one pass (rl.micro_prompts), weighted by their share of the step's tokens.
"""

import torch

from stages.rl.objectives.parts import Loss, Part, Whole
from stages.rl.params import RlParams


def disco(part: Part, whole: Whole, params: RlParams) -> Loss:
    lengths_B = part.mask_BT.sum(-1).clamp_min(1)
    scores_PG = ((part.logp_BT * part.mask_BT).sum(-1) / lengths_B).view(-1, params.group)
    right_PG = part.success_B.view(-1, params.group)
    total = scores_PG.sum() * 0.0  # touches the weights also where no group counts
    for scores, right in zip(scores_PG, right_PG, strict=True):
        if right.any() and not right.all():
            wrong = scores[~right]
            hardest = params.disco_tau * (torch.logsumexp(wrong / params.disco_tau, 0) - torch.log(wrong.new_tensor(float(len(wrong)))))
            total = total + scores[right].mean() - hardest
    kl = ((part.old_BT - part.logp_BT) * part.mask_BT).sum() / part.mask_BT.sum().clamp_min(1)
    penalty = params.disco_beta * (kl - params.disco_delta).clamp_min(0) ** 2 * part.mask_BT.sum() / whole.tokens
    return Loss(-total / (whole.rows / params.group) + penalty, torch.zeros((), device=total.device))

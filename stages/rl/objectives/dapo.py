"""DAPO (Yu et al. 2025, arXiv 2503.14476, eq. 8): group-normalised advantages, clip-higher, and every token of the step counts the same.

    L = -1 / sum_i |o_i|  sum_i sum_t min(r_it A_i, clip(r_it, 1 - eps_low, 1 + eps_high) A_i)

with r_it = pi(o_it) / pi_old(o_it), the sums over all answers of the step.
"""

from stages.rl.objectives.parts import Loss, Part, Whole, over_tokens, surrogate, token_ratio
from stages.rl.params import RlParams


def dapo(part: Part, whole: Whole, params: RlParams) -> Loss:
    return over_tokens(part, surrogate(part, params, token_ratio(part)), whole.tokens)

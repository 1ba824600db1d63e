"""GRPO (Shao et al. 2024, DeepSeekMath, arXiv 2402.03300, eq. 3): every answer counts the same, however long.

    L = -1 / N  sum_i 1 / |o_i|  sum_t min(r_it A_i, clip(r_it, 1 - eps_low, 1 + eps_high) A_i)

N answers in the step, r and A as in dapo.py. A long wrong answer is punished less a token than a short one.
"""

from stages.rl.objectives.parts import Loss, Part, Whole, over_rows, surrogate, token_ratio
from stages.rl.params import RlParams


def grpo(part: Part, whole: Whole, params: RlParams) -> Loss:
    return over_rows(part, surrogate(part, params, token_ratio(part)), whole.rows)

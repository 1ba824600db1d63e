"""Dr. GRPO (Liu et al. 2025, Understanding R1-Zero-like Training, arXiv 2503.20783, section 3.2): GRPO without its two divisions.

    L = -1 / (N M)  sum_i sum_t min(r_it A_i, clip(r_it, 1 - eps_low, 1 + eps_high) A_i),   A_i = R_i - mean(R)

M = rl.max_tokens, a constant in place of |o_i|: neither an answer's length nor a slate's difficulty changes what a token weighs.
"""

from stages.rl.objectives.parts import Loss, Part, Whole, over_tokens, surrogate, token_ratio
from stages.rl.params import RlParams


def dr_grpo(part: Part, whole: Whole, params: RlParams) -> Loss:
    return over_tokens(part, surrogate(part, params, token_ratio(part)), whole.rows * params.max_tokens)

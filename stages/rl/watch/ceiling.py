"""What reward is left to gain by spending entropy: R = -a e^H + b (Cui et al. 2025, The Entropy Mechanism of RL, arXiv 2505.22617, eq. 2).

H is the entropy of a token in nats, R the reward; at H = 0 nothing is left to explore, and R = b - a is the ceiling.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEAST_STEPS = 3  # two numbers are fitted


class EntropyFit(NamedTuple):
    """explained: R squared, the share of the reward's variance that the curve explains."""

    a: float
    b: float
    ceiling: float
    explained: float


def entropy_fit(entropy_S: Sequence[float], reward_S: Sequence[float]) -> EntropyFit | None:
    """Least squares over the steps; None where there are too few, or the entropy or the reward never changes."""
    x_S, y_S = -np.exp(np.asarray(entropy_S, dtype=np.float64)), np.asarray(reward_S, dtype=np.float64)
    if len(x_S) < LEAST_STEPS or np.ptp(x_S) < 1e-9 or np.ptp(y_S) < 1e-9 or not np.isfinite([*x_S, *y_S]).all():
        return None
    x_mean, y_mean = x_S.mean(), y_S.mean()
    a = float((x_S - x_mean) @ (y_S - y_mean) / ((x_S - x_mean) @ (x_S - x_mean)))
    b = float(y_mean - a * x_mean)
    left_S = y_S - (a * x_S + b)
    return EntropyFit(a, b, b - a, float(1 - left_S @ left_S / ((y_S - y_mean) @ (y_S - y_mean))))

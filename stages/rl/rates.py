"""The learning rate of each step."""

import math

from stages.rl.params import RlParams


def rate(step: int, params: RlParams) -> float:
    """Of step `step`, from 0. It rises in equal parts over rl.warmup of the steps to rl.lr, which the last of them has; then rl.schedule.

    cosine and linear fall to lr / (steps after the warmup) or less at the last step: no step is without a rate.
    """
    warm = round(params.warmup * params.steps)
    if step < warm:
        return params.lr * (step + 1) / warm
    done = (step - warm) / (params.steps - warm)
    left = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[params.schedule]
    return params.lr * left

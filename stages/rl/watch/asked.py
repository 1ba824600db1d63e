"""Slates that the policy answers greedily beside its training, so that steps compare: the same ones each time, nothing learnt from them."""

from collections.abc import Sequence

import numpy as np

from stages.rl.params import RlParams
from stages.rl.rewards.group import RewardFunction
from stages.rl.rollouts import Group, Task, score
from stages.shared.generation.base import Engine, Sampling
from stages.shared.slates.answers import Reader
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.slate import Slate, permuted

Orders = Sequence[Sequence[int]]


def orders_shown(slates: Sequence[Slate], params: RlParams, stream: int) -> list[list[int]]:
    """Of each slate's candidates: random where rl.shuffle, else the initial ranking. stream: apart from other draws of the seed."""
    rng = np.random.default_rng([params.seed, stream])
    return [rng.permutation(len(slate.candidates)).tolist() if params.shuffle else list(range(len(slate.candidates))) for slate in slates]


def tasks_in_orders(slates: Sequence[Slate], orders: Orders, encoded: EncodedLayout, params: RlParams) -> list[Task]:
    """Each slate with its candidates in the order given, initial ranks in the order of the prompt."""
    shown = [permuted(slate, order) for slate, order in zip(slates, orders, strict=True)]
    constraints = encoded.constraints(shown, params.constrained, params.max_tokens)
    rows = zip(encoded.prompts(shown), constraints, slates, orders, strict=True)
    return [
        Task(prompt, constraint, slate.target_rank, tuple(order), slate.slate, slate.grades) for prompt, constraint, slate, order in rows
    ]


def answered(tasks: Sequence[Task], engine: Engine, reader: Reader, reward: RewardFunction, params: RlParams) -> list[Group]:
    """Groups of one answer each."""
    if not tasks:
        return []
    completions = engine.generate([task.prompt for task in tasks], Sampling(params.max_tokens), [task.constraint for task in tasks])
    return score(tasks, completions, reader, reward, params.consistent)

"""Soft acceptance: statistical rejection sampling (RSO, Liu et al. 2024, arXiv 2309.06657, algorithm 1)."""

import math
from collections.abc import Sequence

import numpy as np

from stages.shared.core.progress import tracked
from stages.traces.acceptance.checks import TraceChecks
from stages.traces.acceptance.kept import Kept
from stages.traces.acceptance.rejection import RejectionLog, SlateLog, ask
from stages.traces.out_of_time import ScoredSlate
from stages.traces.teachers.teacher import Teacher


def sample_softly(
    teacher: Teacher,
    checks: TraceChecks,
    slates: Sequence[ScoredSlate],
    attempts: int,
    keep: int,
    max_noise_rank: int | None,
    shuffle_seed: int | None,
    beta: float,
    seed: int,
) -> tuple[RejectionLog, dict[str, float]]:
    """`attempts` tries at every slate, of whose different traces `keep` are accepted by their reward. Also the figures of the mode.

    A proposal that puts the target first although the features say otherwise (see `sample`) is refused as luck, the others of its slate are
    not.
    """
    log = RejectionLog([SlateLog() for _ in slates])
    proposals: list[list[Kept]] = [[] for _ in slates]
    for attempt in tracked(range(attempts), "tries", unit="try"):
        for i, kept in ask(teacher, checks, slates, range(len(slates)), attempt, shuffle_seed, log):
            one = log.slates[i]
            if kept.right and max_noise_rank is not None and slates[i].support >= max_noise_rank:
                one.luck += 1
            elif any((other.proposal, other.shown) == (kept.proposal, kept.shown) for other in proposals[i]):
                one.repeated += 1
            else:
                proposals[i].append(kept)
    rewards = [[reward(kept) for kept in of_slate] for of_slate in proposals]
    for scored, one, of_slate, values in zip(slates, log.slates, proposals, rewards, strict=True):
        rng = np.random.default_rng([seed, scored.slate.slate, 4])
        one.kept = [of_slate[place] for place in accepted(values, keep, beta, rng)]
    flat = [value for values in rewards for value in values]
    figures = {
        "proposals": len(flat),
        "mean_reward": float(np.mean(flat)) if flat else 0.0,
        "mean_reward_kept": float(np.mean([reward(kept) for kept in log.kept])) if log.kept else 0.0,
    }
    return log, figures


def reward(kept: Kept) -> float:
    """NDCG of the one relevant candidate in the proposal's order: 1 where it comes first."""
    assert kept.proposal.order is not None
    first = min(kept.proposal.order.index(rank) for rank in kept.scored.slate.best_ranks)
    return 1.0 / math.log2(first + 2.0)


def accepted(rewards: Sequence[float], count: int, beta: float, rng: np.random.Generator) -> list[int]:
    """Places of `count` proposals, ascending; of all where there are no more.

    Pass after pass over those that are left, each accepted with probability exp((r - r_max) / beta), r_max the highest reward left: so the
    accepted are distributed as proposals weighted by exp(r / beta). beta -> 0 takes the best, beta -> infinity any.
    """
    left = list(range(len(rewards)))
    chosen: list[int] = []
    while left and len(chosen) < count:
        highest = max(rewards[place] for place in left)
        for place in list(left):
            if len(chosen) < count and rng.random() < math.exp((rewards[place] - highest) / beta):
                chosen.append(place)
                left.remove(place)
    return sorted(chosen)

"""Acceptance corrected for chance: a teacher that put the target first must do so again under other orders of the candidates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from stages.traces.out_of_time import ScoredSlate
from stages.traces.teachers.teacher import Teacher


@dataclass(frozen=True)
class ShuffledVerification:
    """shuffles: further orders that a slate is shown in; share: of them, those that must put the target first.

    attempts: the cap of the loop. Tries of a verification have numbers above it, so that the teacher draws anew.
    """

    shuffles: int
    share: float
    attempts: int
    seed: int

    @property
    def needed(self) -> int:
        return math.ceil(self.share * self.shuffles - 1e-9)

    def passing(self, teacher: Teacher, passed: Sequence[tuple[ScoredSlate, tuple[int, ...]]], attempt: int) -> tuple[list[bool], int]:
        """Whether each of `passed` (slate in the initial ranking, order that was shown) is confirmed, and how often the teacher was asked.

        A slate whose fate is settled is not asked about again. An answer that cannot be read confirms nothing.
        """
        right, asked = [0] * len(passed), 0
        orders = [self.other_orders(scored, shown, attempt) for scored, shown in passed]
        for number in range(self.shuffles):
            left = self.shuffles - number
            still = [i for i, count in enumerate(right) if count < self.needed <= count + left]
            slates = [passed[i][0].shown_as(orders[i][number]) for i in still]
            proposals = teacher.propose(slates, self.attempts + attempt * self.shuffles + number) if slates else []
            asked += len(proposals)
            for i, proposal, scored in zip(still, proposals, slates, strict=True):
                right[i] += proposal.order is not None and proposal.order[0] in scored.slate.best_ranks
        return [count >= self.needed for count in right], asked

    def other_orders(self, scored: ScoredSlate, shown: tuple[int, ...], attempt: int) -> list[tuple[int, ...]]:
        """As many orders as there are shuffles, none of them `shown` or twice, where a slate has so many."""
        count = len(shown)
        rng = np.random.default_rng([self.seed, scored.slate.slate, attempt, 2])
        orders: list[tuple[int, ...]] = []
        while len(orders) < self.shuffles:
            order = tuple(rng.permutation(count).tolist())
            if order not in [shown, *orders] or len(orders) + 1 >= math.factorial(count):
                orders.append(order)
        return orders

    def chance(self, once: float) -> float:
        """That one who puts the target first with probability `once`, whatever was before, is confirmed."""
        return float(binom.sf(self.needed - 1, self.shuffles, once))

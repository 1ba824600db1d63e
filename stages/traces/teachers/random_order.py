"""A control: a teacher that looks at nothing. What it gets accepted is what chance gets accepted."""

from collections.abc import Sequence

import numpy as np

from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.slate import order_of
from stages.traces.out_of_time import ScoredSlate
from stages.traces.teachers.teacher import Proposal


class RandomTeacher:
    """Relevances spread evenly over the levels, in a random order; its traces are worded as the statistical teacher's."""

    attempts: int | None = None

    def __init__(self, layout: Layout, seed: int):
        self.layout, self.seed = layout, seed

    def propose(self, slates: Sequence[ScoredSlate], attempt: int) -> list[Proposal]:
        return [self._propose(scored, attempt) for scored in slates]

    def _propose(self, scored: ScoredSlate, attempt: int) -> Proposal:
        rng, count = np.random.default_rng([self.seed, scored.slate.slate, attempt, 3]), len(scored.scores)
        relevances = [int(place) * self.layout.levels // count for place in rng.permutation(count)]
        return Proposal(self.layout.trace(scored.slate, relevances), tuple(order_of(relevances)), relevances=tuple(relevances))

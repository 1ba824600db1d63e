"""What a teacher is, and the statistical one: Plackett-Luce around LambdaMART's scores, in the words of the layout."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.slate import order_of
from stages.traces.out_of_time import ScoredSlate


@dataclass(frozen=True)
class Proposal:
    """One try at a slate. order: ranks as shown, best first; None with a `fault` where the teacher gave no permutation.

    relevances: in the order shown; empty where the teacher did not say one for each. cited: features that the answer's explanation names.
    explanation: what the teacher's own answer says beside the order, to be checked only: the answer that a student learns is the layout's.
    """

    trace: str
    order: tuple[int, ...] | None
    fault: str = ""
    relevances: tuple[int, ...] = ()
    cited: tuple[str, ...] = ()
    explanation: str = field(default="", compare=False)


class Teacher(Protocol):
    attempts: int | None  # tries beyond this repeat the same; None = no limit

    def propose(self, slates: Sequence[ScoredSlate], attempt: int) -> list[Proposal]:
        """One proposal a slate, in order. attempt: from 0; another attempt draws anew, the same calls draw the same."""
        ...


class StatisticalTeacher:
    """random_ties: equal relevances in a random order; otherwise the order shown breaks them, which is for slates that are shown in random
    orders: shown as the retriever had them, ties would teach its order."""

    def __init__(self, layout: Layout, temperature: float, seed: int, targeted: bool, random_ties: bool = False):
        self.layout, self.temperature, self.seed, self.targeted, self.random_ties = layout, temperature, seed, targeted, random_ties
        self.attempts = 1 if targeted or temperature == 0.0 else None

    def propose(self, slates: Sequence[ScoredSlate], attempt: int) -> list[Proposal]:
        return [self._propose(scored, attempt) for scored in slates]

    def _propose(self, scored: ScoredSlate, attempt: int) -> Proposal:
        if self.targeted:
            relevances = shown_relevances(scored)
        else:
            # A stream for each (slate, attempt): a slate's traces do not depend on which others are labelled.
            rng = np.random.default_rng([self.seed, scored.slate.slate, attempt])
            relevances = levels_of(sample_utilities(scored.scores, self.temperature * scored.spread, rng), scored.edges)
        return self._written(scored, relevances, self._order(scored, relevances, attempt))

    def _order(self, scored: ScoredSlate, relevances: Sequence[int], attempt: int) -> tuple[int, ...]:
        if not self.random_ties:
            return tuple(order_of(relevances))
        # A stream apart from the noise of the scores and from the order shown (rejection.order_shown).
        place_K = np.random.default_rng([self.seed, scored.slate.slate, attempt, 2]).permutation(len(relevances))
        return tuple(sorted(range(len(relevances)), key=lambda rank: (-relevances[rank], place_K[rank])))

    def _written(self, scored: ScoredSlate, relevances: Sequence[int], order: tuple[int, ...]) -> Proposal:
        return Proposal(self.layout.trace(scored.slate, relevances, order), order, relevances=tuple(relevances))


def sample_utilities(scores: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """scores [..., K] plus centred Gumbel noise of `scale`: sorting them draws from Plackett-Luce with logits scores / scale."""
    # Centred, so that the noise does not shift utilities against the edges, which are quantiles of noise-free scores.
    return scores + scale * (rng.gumbel(size=scores.shape) - np.euler_gamma)


def levels_of(utilities: np.ndarray, edges: np.ndarray) -> list[int]:
    """utilities [K] -> levels 0..len(edges). Equal levels are ties, which the answer breaks by the order shown."""
    return [int(level) for level in np.searchsorted(edges, utilities, side="right")]


def shown_relevances(scored: ScoredSlate) -> list[int]:
    """The noise-free relevances with the target alone at the top; where several were taken, a level for each grade, above all others."""
    grades = scored.slate.relevant
    top, lowest = len(scored.edges), min(grade for grade in grades if grade)
    # Where there are more grades than levels, the lowest share one.
    below = max(0, top - 1 - max(grades) + lowest)
    levels = [min(level, below) for level in levels_of(scored.scores, scored.edges)]
    return [max(0, top - max(grades) + grade) if grade else level for grade, level in zip(grades, levels, strict=True)]

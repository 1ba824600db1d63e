"""What a teacher is, and the statistical one: Plackett-Luce around LambdaMART's scores, in words that cite the features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stages.shared.slates.candidate_features import FEATURES, feature_tokens
from stages.shared.slates.prompts import RELEVANCE_LEVELS, Catalog, PromptParams, break_ties, order_of, trace_text
from stages.traces.out_of_time import ScoredSlate

BEST_FEATURES = 2
CO = list(FEATURES).index("co")


@dataclass(frozen=True)
class Proposal:
    """One try at a slate. order: incoming ranks, best first; None with a `fault` where the teacher gave no permutation.

    relevances: by incoming rank; empty where the teacher did not say one for each.
    """

    trace: str
    order: tuple[int, ...] | None
    fault: str = ""
    relevances: tuple[int, ...] = ()


class Teacher(Protocol):
    attempts: int | None  # tries beyond this repeat the same; None = no limit

    def propose(self, slates: Sequence[ScoredSlate], attempt: int) -> list[Proposal]:
        """One proposal a slate, in order. attempt: from 0; another attempt draws anew, the same calls draw the same."""
        ...


class StatisticalTeacher:
    def __init__(self, catalog: Catalog, options: PromptParams, temperature: float, seed: int, targeted: bool):
        self.catalog, self.options, self.temperature, self.seed, self.targeted = catalog, options, temperature, seed, targeted
        self.attempts = 1 if targeted or temperature == 0.0 else None

    def propose(self, slates: Sequence[ScoredSlate], attempt: int) -> list[Proposal]:
        return [self._propose(scored, attempt) for scored in slates]

    def _propose(self, scored: ScoredSlate, attempt: int) -> Proposal:
        if self.targeted:
            relevances = shown_relevances(scored)
        else:
            # A stream for each (slate, attempt): a slate's traces do not depend on which others are labelled.
            rng = np.random.default_rng([self.seed, scored.slate.slate, attempt])
            relevances = relevances_of(sample_utilities(scored.scores, self.temperature * scored.spread, rng), scored.edges)
        order = order_of(relevances)
        trace = trace_text(scored.slate, self.catalog, self.options, relevances, linked(scored), best_words(scored, order[0]))
        return Proposal(trace, tuple(order), relevances=tuple(relevances))


def sample_utilities(scores: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """scores [..., K] plus centred Gumbel noise of `scale`: sorting them draws from Plackett-Luce with logits scores / scale."""
    # Centred, so that the noise does not shift utilities against the edges, which are quantiles of noise-free scores.
    return scores + scale * (rng.gumbel(size=scores.shape) - np.euler_gamma)


def relevances_of(utilities: np.ndarray, edges: np.ndarray) -> list[int]:
    """utilities [K] -> relevances in their order, no two alike."""
    return break_ties(levels_of(utilities, edges), utilities.tolist())


def levels_of(utilities: np.ndarray, edges: np.ndarray) -> list[int]:
    """utilities [K] -> levels 0..len(edges)."""
    return [int(level) for level in np.searchsorted(edges, utilities, side="right")]


def shown_relevances(scored: ScoredSlate) -> list[int]:
    """The noise-free relevances with the target at the maximum."""
    levels, utilities = levels_of(scored.scores, scored.edges), scored.scores.tolist()
    levels[scored.slate.target_rank], utilities[scored.slate.target_rank] = RELEVANCE_LEVELS - 1, float("inf")
    return break_ties(levels, utilities)


def linked(scored: ScoredSlate) -> int:
    """The candidate that co-occurs most with the history; the first of equals."""
    return max(range(len(scored.slate.bins)), key=lambda rank: scored.slate.bins[rank][CO])


def best_words(scored: ScoredSlate, rank: int) -> list[str]:
    """The features that speak most for the candidate at `rank`, strongest first; none that speaks against it."""
    reasons, words = scored.contributions[rank], feature_tokens(scored.slate.bins[rank])
    ranked = sorted(range(len(words)), key=lambda feature: (-reasons[feature], feature))[:BEST_FEATURES]
    return [words[feature] for feature in ranked if reasons[feature] > 0.0]

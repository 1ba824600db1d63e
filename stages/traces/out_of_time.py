"""Out-of-time scores: slates in folds of time, each scored by LambdaMART fitted on the folds before it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stages.shared.core.errors import StageError
from stages.shared.recsys import lambdamart
from stages.shared.recsys.lambdamart_params import LambdaMartParams
from stages.shared.slates.candidate_features import FEATURES
from stages.shared.slates.slate import RELEVANCE_LEVELS, Slate, permuted

TOP_FINENESS = 2.0  # the highest candidates decide the answer: levels there hold this many times fewer scores than at the bottom


@dataclass(frozen=True)
class ScoredSlate:
    """A slate and what the noise-free scorer gives it. `scores` [K], by the order in which the slate shows its candidates.

    edges [RELEVANCE_LEVELS - 1]: scores at which the relevance level changes; spread: standard deviation of the scores. Both from the
    slates the scorer was fitted on, so a relevance is comparable between folds although raw scores are not.
    """

    slate: Slate
    fold: int
    scores: np.ndarray
    edges: np.ndarray
    spread: float

    def shown_as(self, order: Sequence[int]) -> "ScoredSlate":
        """The same slate with the candidate at order[p] at place p."""
        return replace(self, slate=permuted(self.slate, order), scores=self.scores[list(order)])

    @property
    def noise_free_rank(self) -> int:
        """Place of the target by score, from 0; equals keep the incoming order."""
        target_score = self.scores[self.slate.target_rank]
        return int((self.scores > target_score).sum() + (self.scores[: self.slate.target_rank] == target_score).sum())


def time_folds(timestamps: Sequence[int], count: int) -> np.ndarray:
    """Fold [n] of each of the ascending timestamps: about equal sizes, and one timestamp never in two folds."""
    times = np.asarray(timestamps)
    cuts = [np.searchsorted(times, times[len(times) * b // count], side="left") for b in range(1, count)]
    if len({0, *cuts}) < count:
        raise StageError(
            f"data/retrieve/slates.parquet: the times of {len(times)} training slates do not cut into {count} folds; "
            "lower traces.time_folds"
        )
    return np.searchsorted(cuts, np.arange(len(times)), side="right")


def feature_array(slates: Sequence[Slate]) -> np.ndarray:
    """The features as the prompt spells them: bins, float32 [n, K, F]."""
    k = len(slates[0].bins)
    for slate in slates:
        if len(slate.bins) != k or k < 2:
            problem = f"slate {slate.slate} has {len(slate.bins)} candidates, expected {max(k, 2)}"
            raise StageError(f"data/retrieve/candidate_features.parquet: {problem}; rerun: gr2 run retrieve")
    features = np.array([slate.bins for slate in slates], dtype=np.float32)
    assert features.shape == (len(slates), k, len(FEATURES))
    return features


def score_out_of_time(slates: Sequence[Slate], folds: int, seed: int, threads: int, params: LambdaMartParams) -> list[ScoredSlate]:
    """Every slate of fold 1 and later, by time. `slates`: training slates with their target, by time."""
    features = feature_array(slates)
    targets = np.array([slate.target_rank for slate in slates])
    times = np.array([slate.timestamp for slate in slates])
    fold_N = time_folds(times.tolist(), folds)
    scored: list[ScoredSlate] = []
    for fold in range(1, folds):
        past, now = np.flatnonzero(fold_N < fold), np.flatnonzero(fold_N == fold)
        check_earlier(times[past], times[now], fold)
        booster = lambdamart.fit(features[past], targets[past], seed, threads, params)
        # Edges and spread come from the slates fitted on: those of the labelled fold would look into its future.
        known = lambdamart.scores(booster, features[past])
        edges = level_edges(known)
        scores = lambdamart.scores(booster, features[now])
        scored += [ScoredSlate(slates[i], fold, scores[j], edges, float(known.std())) for j, i in enumerate(now)]
    return scored


def level_edges(scores: np.ndarray) -> np.ndarray:
    """[RELEVANCE_LEVELS - 1]: quantiles of `scores`, whose levels hold evenly fewer of them from the bottom to the top.

    Of the scores themselves, not less their slate's mean: then the relevance of a candidate follows from its own features alone, and the
    student need not know the other candidates to find it (docs/training.md).
    """
    sizes = np.linspace(TOP_FINENESS, 1.0, RELEVANCE_LEVELS)
    edges: np.ndarray = np.quantile(scores, np.cumsum(sizes)[:-1] / sizes.sum())
    return edges


def check_earlier(fitted: np.ndarray, labelled: np.ndarray, fold: int) -> None:
    """Fails unless every timestamp fitted on is at most every timestamp labelled."""
    if fitted.max() > labelled.min():
        raise StageError(
            f"leak in traces: the scorer of fold {fold} was fitted on a slate of time {fitted.max()}, later than time {labelled.min()}, "
            "which it labels; the slates must be ordered by time"
        )

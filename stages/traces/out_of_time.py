"""Out-of-time scores: slates in folds of time, each scored by LambdaMART models fitted on the folds before it.

What a teacher is worth is measured by these. What it writes comes from one scorer for all slates (`traces.labels: latest`): scorers of
different age give equal features different relevances, which a student that sees the features alone can only average (docs/training.md).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stages.shared.core.errors import StageError
from stages.shared.recsys import lambdamart
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.reranking.padding import padded, relevance_array
from stages.shared.slates.slate import Slate, permuted
from stages.traces.params import ScorerParams

TOP_FINENESS = 3.0  # the highest candidates decide the answer: levels there hold this many times fewer scores than at the bottom


@dataclass(frozen=True)
class ScoredSlate:
    """A slate and what the noise-free scorer gives it. `scores` [K], by the order in which the slate shows its candidates.

    edges [levels - 1]: scores at which the relevance level changes; spread: standard deviation of the scores. Both from the
    slates the scorer was fitted on, so a relevance is comparable between folds although raw scores are not.
    unseen_scores [K]: of the scorer fitted on earlier slates alone, which has not seen this one; equal to `scores` when labels are its own.
    contributions [K, F]: what each feature adds to `scores`; None where nobody asked.
    """

    slate: Slate
    fold: int
    scores: np.ndarray
    edges: np.ndarray
    spread: float
    unseen_scores: np.ndarray
    contributions: np.ndarray | None = None

    def shown_as(self, order: Sequence[int]) -> "ScoredSlate":
        """The same slate with the candidate at order[p] at place p."""
        places = list(order)
        contributions = None if self.contributions is None else self.contributions[places]
        scores, unseen_scores = self.scores[places], self.unseen_scores[places]
        return replace(self, slate=permuted(self.slate, order), scores=scores, unseen_scores=unseen_scores, contributions=contributions)

    @property
    def noise_free_rank(self) -> int:
        """Place of the target, from 0, by what the teacher labels with; equals keep the incoming order. Of several with the highest grade
        the first one's."""
        return min(place_of(self.scores, rank) for rank in self.slate.best_ranks)

    @property
    def unseen_rank(self) -> int:
        """The same by the scorer that has not seen the slate."""
        return min(place_of(self.unseen_scores, rank) for rank in self.slate.best_ranks)

    @property
    def support(self) -> float:
        """Mean place of the target among its equals by the scorer that has not seen the slate: whether the features support it, to which
        the order of equals adds nothing."""
        return min(mean_place_of(self.unseen_scores, rank) for rank in self.slate.best_ranks)


def place_of(scores: np.ndarray, candidate: int) -> int:
    """Place of one candidate by falling score, from 0; equals keep their order."""
    return int((scores > scores[candidate]).sum() + (scores[:candidate] == scores[candidate]).sum())


def mean_place_of(scores: np.ndarray, candidate: int) -> float:
    """The same; equals share the mean of their places, as in rank fusion."""
    return float((scores > scores[candidate]).sum() + ((scores == scores[candidate]).sum() - 1) / 2)


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


def feature_array(slates: Sequence[Slate], quoted: Collection[str]) -> np.ndarray:
    """The features as the prompt spells them: bins, float32 [n, K, F]; NaN past the end of a slate shorter than the longest.

    quoted: what a scorer is to go by; the others are 0, so nothing can follow from them. A trace that does not quote a reason for its
    relevance teaches noise.
    """
    for slate in slates:
        if len(slate.bins) != len(slate.candidates) or len(slate.bins) < 2:
            problem = f"slate {slate.slate} has {len(slate.bins)} candidates, expected {max(len(slate.candidates), 2)}"
            raise StageError(f"data/retrieve/candidate_features.parquet: {problem}; rerun: gr2 run retrieve")
    bins = padded([slate.bins for slate in slates], np.nan, np.float32)
    known = np.array([feature in quoted for feature in slates[0].features])
    bins[:, :, ~known] *= 0  # what is NaN stays so
    return bins


def known_features(slates: Sequence[Slate], layout: Layout, params: ScorerParams) -> list[str]:
    """What the scorers go by: the features that traces quote, or those of them that traces.scorer.features names."""
    if unknown := sorted({*params.features} - {*slates[0].features}):
        shown = ", ".join(slates[0].features)
        raise StageError(
            f"params.yaml: traces.scorer.features: {', '.join(unknown)}: the slates have {shown} (prompt.more_features adds some)"
        )
    return [feature for feature in layout.quoted if not params.features or feature in params.features]


def of_candidates(scores: np.ndarray) -> np.ndarray:
    """[n, K], or flat without the places that hold no candidate where there are any."""
    present = np.isfinite(scores)
    return scores if present.all() else scores[present]


def trimmed(values: np.ndarray, slates: Sequence[Slate]) -> list[np.ndarray]:
    """[n, K, ...] -> of each slate the values of its own candidates."""
    return [row[: len(slate.candidates)] for row, slate in zip(values, slates, strict=True)]


def score_out_of_time(
    slates: Sequence[Slate], folds: int, layout: Layout, seed: int, threads: int, params: ScorerParams, explained: bool = False
) -> list[ScoredSlate]:
    """Every slate of fold 1 and later, by time. `slates`: training slates with their target, by time; explained: with contributions.

    layout: whose relevance levels the edges part, and whose quoted features the scorers go by.
    """
    known = known_features(slates, layout, params)
    features = feature_array(slates, known)
    relevance = relevance_array(slates)
    times = np.array([slate.timestamp for slate in slates])
    fold_N = time_folds(times.tolist(), folds)
    scored: list[ScoredSlate] = []
    for fold in range(1, folds):
        past, now = np.flatnonzero(fold_N < fold), np.flatnonzero(fold_N == fold)
        check_earlier(times[past], times[now], fold)
        boosters = lambdamart.fit_ensemble(features[past], relevance[past], seed, threads, params, params.members)
        # Edges and spread come from the slates fitted on: those of the labelled fold would look into its future.
        fitted = of_candidates(lambdamart.mean_scores(boosters, features[past]))
        edges = level_edges(fitted, layout.levels)
        scores = trimmed(lambdamart.mean_scores(boosters, features[now]), [slates[i] for i in now])
        owed: Sequence[np.ndarray | None] = (
            trimmed(lambdamart.mean_contributions(boosters, features[now]), [slates[i] for i in now]) if explained else [None] * len(now)
        )
        scored += [ScoredSlate(slates[i], fold, scores[j], edges, float(fitted.std()), scores[j], owed[j]) for j, i in enumerate(now)]
    return scored


def label_by_latest(
    scored: Sequence[ScoredSlate],
    slates: Sequence[Slate],
    layout: Layout,
    seed: int,
    threads: int,
    params: ScorerParams,
    explained: bool = False,
) -> list[ScoredSlate]:
    """`scored` with scores, edges and spread of one scorer, fitted on all `slates`: equal features get equal relevances everywhere.

    It has seen the targets of the slates it labels. That does not reach the student, who is shown features and not slates; it makes more
    traces hit the target than would on new slates, which is why support and the audit go by `unseen_scores`.
    """
    known = known_features(slates, layout, params)
    features = feature_array(slates, known)
    boosters = lambdamart.fit_ensemble(features, relevance_array(slates), seed, threads, params, params.members)
    everything = of_candidates(lambdamart.mean_scores(boosters, features))
    edges, spread = level_edges(everything, layout.levels), float(everything.std())
    own = [one.slate for one in scored]
    labelled = feature_array(own, known)
    latest = trimmed(lambdamart.mean_scores(boosters, labelled), own)
    owed: Sequence[np.ndarray | None] = (
        trimmed(lambdamart.mean_contributions(boosters, labelled), own) if explained else [None] * len(scored)
    )
    return [replace(one, scores=latest[i], edges=edges, spread=spread, contributions=owed[i]) for i, one in enumerate(scored)]


def level_edges(scores: np.ndarray, levels: int) -> np.ndarray:
    """[levels - 1]: quantiles of `scores`, whose levels hold evenly fewer of them from the bottom to the top.

    Of the scores themselves, not less their slate's mean: then the relevance of a candidate follows from its own features alone, and the
    student need not know the other candidates to find it (docs/training.md).
    """
    sizes = np.linspace(TOP_FINENESS, 1.0, levels)
    edges: np.ndarray = np.quantile(scores, np.cumsum(sizes)[:-1] / sizes.sum())
    return edges


def check_earlier(fitted: np.ndarray, labelled: np.ndarray, fold: int) -> None:
    """Fails unless every timestamp fitted on is at most every timestamp labelled."""
    if fitted.max() > labelled.min():
        raise StageError(
            f"leak in traces: the scorer of fold {fold} was fitted on a slate of time {fitted.max()}, later than time {labelled.min()}, "
            "which it labels; the slates must be ordered by time"
        )

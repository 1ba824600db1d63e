"""Out-of-time judgement: slates in blocks of time, each scored by LambdaMART fitted on the blocks before it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.shared.core.errors import StageError
from stages.shared.recsys import lambdamart
from stages.shared.recsys.lambdamart import LambdaMartParams
from stages.shared.slates.candidate_features import FEATURES
from stages.shared.slates.prompts import RELEVANCE_LEVELS, Slate


@dataclass(frozen=True)
class Judged:
    """A slate and what the noise-free scorer says of it. `scores` [K]; `contributions` [K, F].

    edges [RELEVANCE_LEVELS - 1]: scores at which the relevance word changes; spread: standard deviation of the scores. Both from the
    slates the scorer was fitted on, so a relevance is comparable between blocks although raw scores are not.
    """

    slate: Slate
    block: int
    scores: np.ndarray
    contributions: np.ndarray
    edges: np.ndarray
    spread: float

    @property
    def noise_free_rank(self) -> int:
        """Place of the target by score, from 0; equals keep the incoming order."""
        own = self.scores[self.slate.target_rank]
        return int((self.scores > own).sum() + (self.scores[: self.slate.target_rank] == own).sum())


def blocks_of(timestamps: Sequence[int], count: int) -> np.ndarray:
    """Block [n] of each of the ascending timestamps: about equal sizes, and one timestamp never in two blocks."""
    times = np.asarray(timestamps)
    cuts = [np.searchsorted(times, times[len(times) * b // count], side="left") for b in range(1, count)]
    if len({0, *cuts}) < count:
        raise StageError(
            f"data/retrieve/slates.parquet: the times of {len(times)} training slates do not cut into {count} blocks; lower traces.blocks"
        )
    return np.searchsorted(cuts, np.arange(len(times)), side="right")


def feature_array(slates: Sequence[Slate]) -> np.ndarray:
    """The evidence as it stands in the prompt: bins, float32 [n, K, F]."""
    k = len(slates[0].bins)
    for slate in slates:
        if len(slate.bins) != k or k < 2:
            found = f"slate {slate.slate} has {len(slate.bins)} candidates, expected {max(k, 2)}"
            raise StageError(f"data/retrieve/candidate_features.parquet: {found}; rerun: gr2 run retrieve")
    features = np.array([slate.bins for slate in slates], dtype=np.float32)
    assert features.shape == (len(slates), k, len(FEATURES))
    return features


def judge(slates: Sequence[Slate], blocks: int, seed: int, threads: int, params: LambdaMartParams) -> list[Judged]:
    """Every slate of block 1 and later, by time. `slates`: training slates with their target, by time."""
    features = feature_array(slates)
    targets = np.array([slate.target_rank for slate in slates])
    times = np.array([slate.timestamp for slate in slates])
    block = blocks_of(times.tolist(), blocks)
    judged: list[Judged] = []
    for b in range(1, blocks):
        past, now = np.flatnonzero(block < b), np.flatnonzero(block == b)
        check_earlier(times[past], times[now], b)
        booster = lambdamart.fit(features[past], targets[past], seed, threads, params)
        known = centred(lambdamart.scores(booster, features[past]))
        edges = np.quantile(known, np.arange(1, RELEVANCE_LEVELS) / RELEVANCE_LEVELS)
        scores, reasons = centred(lambdamart.scores(booster, features[now])), lambdamart.contributions(booster, features[now])
        judged += [Judged(slates[i], b, scores[j], reasons[j], edges, float(known.std())) for j, i in enumerate(now)]
    return judged


def centred(scores: np.ndarray) -> np.ndarray:
    """scores [n, K] less each slate's mean: relevance compares the candidates of one slate.

    Most of the raw scores' variance lies between slates, where it orders nothing; a student then learns to repeat the first relevance.
    """
    return scores - scores.mean(axis=1, keepdims=True)


def check_earlier(fitted: np.ndarray, labelled: np.ndarray, block: int) -> None:
    """Fails unless every timestamp fitted on is at most every timestamp labelled."""
    if fitted.max() > labelled.min():
        raise StageError(
            f"leak in traces: the scorer of block {block} was fitted on a slate of time {fitted.max()}, later than time {labelled.min()}, "
            "which it labels; the slates must be ordered by time"
        )

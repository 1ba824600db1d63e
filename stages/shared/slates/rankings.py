"""Orders that a ranker gives to slates; and the rankers that need no language model."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stages.shared.recsys import lambdamart
from stages.shared.slates.prompts import Slate


@dataclass(frozen=True)
class Judged:
    """One ranker on n slates. orders int [n, K]: incoming ranks, best first.

    The row of an invalid answer is the incoming order, and `faults` says why. reasoning_tokens, answer_tokens: how many were written
    up to the end of the think block, and after it; empty for a ranker that writes nothing.
    """

    orders: np.ndarray
    faults: list[str]
    texts: list[str]
    reasoning_tokens: list[int] = field(default_factory=list)
    answer_tokens: list[int] = field(default_factory=list)

    def at(self, rows: Sequence[int]) -> "Judged":
        """On the slates of these rows."""
        thoughts, answers = ([own[row] for row in rows] if own else [] for own in (self.reasoning_tokens, self.answer_tokens))
        faults, texts = ([own[row] for row in rows] for own in (self.faults, self.texts))
        return Judged(self.orders[list(rows)], faults, texts, thoughts, answers)

    @property
    def valid(self) -> np.ndarray:
        return np.array([not fault for fault in self.faults])


def incoming(slates: Sequence[Slate]) -> Judged:
    orders = np.array([range(len(slate.candidates)) for slate in slates])
    return Judged(orders, [""] * len(slates), [""] * len(slates))


def by_scores(scores: np.ndarray) -> Judged:
    """scores [n, K]: higher is better, ties keep the incoming order."""
    return Judged(np.argsort(-scores, axis=1, kind="stable"), [""] * len(scores), [""] * len(scores))


def by_lambdamart(train: np.ndarray, ranks: np.ndarray, test: np.ndarray, seed: int, threads: int) -> Judged:
    """LightGBM's LambdaMART on the evidence itself (not its bins): [n, K, features] of all training slates, then of the test slates."""
    booster = lambdamart.fit(train, ranks, seed, threads, lambdamart.LambdaMartParams())
    return by_scores(lambdamart.scores(booster, test))

"""Orders that a ranker gives to slates."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stages.shared.slates.reranking.padding import padded_orders
from stages.shared.slates.slate import Slate


@dataclass(frozen=True)
class Rankings:
    """One ranker on n slates. orders int [n, K]: initial ranks, best first; K of the longest slate, shorter ones padded (padding.py).

    The row of an invalid answer is the initial ranking, and `faults` says why. reasoning_tokens, answer_tokens: how many were written
    up to the end of the think block, and after it; empty for a ranker that writes nothing.
    """

    orders: np.ndarray
    faults: list[str]
    texts: list[str]
    reasoning_tokens: list[int] = field(default_factory=list)
    answer_tokens: list[int] = field(default_factory=list)

    def at(self, rows: Sequence[int]) -> "Rankings":
        """On the slates of these rows."""
        thoughts, answers = ([values[row] for row in rows] if values else [] for values in (self.reasoning_tokens, self.answer_tokens))
        faults, texts = ([values[row] for row in rows] for values in (self.faults, self.texts))
        return Rankings(self.orders[list(rows)], faults, texts, thoughts, answers)

    @property
    def valid(self) -> np.ndarray:
        return np.array([not fault for fault in self.faults])


def incoming(slates: Sequence[Slate]) -> Rankings:
    orders = padded_orders([range(len(slate.candidates)) for slate in slates])
    return Rankings(orders, [""] * len(slates), [""] * len(slates))


def from_scores(scores: np.ndarray) -> Rankings:
    """scores [n, K]: higher is better, ties keep the initial ranking; -inf where there is no candidate."""
    return Rankings(np.argsort(-scores, axis=1, kind="stable"), [""] * len(scores), [""] * len(scores))

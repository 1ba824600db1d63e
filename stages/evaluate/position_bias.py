"""Does a ranker look at the items, or at where they stand? The same candidates in shuffled orders, features and all.

The retriever's score is a feature of the candidate (`sc`) and moves with it: a model may use it without being biased.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.report.diagnostics.audit import kendall_tau
from stages.shared.core.errors import StageError
from stages.shared.slates.prompts import Slate
from stages.shared.slates.rankings import Judged

Ints = NDArray[np.int_]
Answerer = Callable[[Sequence[Slate]], Judged]


def permuted(slate: Slate, order: Sequence[int]) -> Slate:
    """`slate` with the candidate at order[p] at position p; its features and the target's rank move along."""
    return replace(
        slate,
        candidates=[slate.candidates[rank] for rank in order],
        bins=[slate.bins[rank] for rank in order],
        target_rank=list(order).index(slate.target_rank) if slate.target_rank >= 0 else -1,
    )


def shuffles(slates: Sequence[Slate], seed: int, repeat: int = 0) -> Ints:
    """[n, K]: an order for each slate, never the incoming one; it depends on the seed, the slate's id and `repeat` alone.

    What else is laid out by candidate goes along by np.take_along_axis(values_NKF, orders[..., None], axis=1).
    """
    orders = []
    for slate in slates:
        if len(slate.candidates) < 2:
            raise StageError(f"slate {slate.slate}: one candidate cannot be shuffled; raise retrieve.candidates to two or more")
        rng = np.random.default_rng([seed, slate.slate, repeat])
        order = rng.permutation(len(slate.candidates))
        while (order == np.arange(len(order))).all():
            order = rng.permutation(len(order))
        orders.append(order)
    return np.array(orders)


@dataclass(frozen=True)
class PositionBias:
    """Presentation 0 is the incoming order, the others are shuffled. All in items (incoming ranks), so that presentations compare.

    shown [s, n, K]: the item at each position; answered [s, n, K]: the items, best first; valid [s, n]; target_rank [n].
    """

    shown: Ints
    answered: Ints
    valid: NDArray[np.bool_]
    target_rank: Ints

    def effects(self) -> NDArray[np.float64]:
        """[K]: by how much a position moves the new rank of whatever item stands there; the sum is 0.

        Least squares of new rank on position with a level for each item of each slate (fixed effects, the within estimator), so
        each item is compared with itself only. Exactly 0 for a ranker blind to positions.
        """
        size = self.shown.shape[2]
        position, rank = np.argsort(self.shown, axis=2), np.argsort(self.answered, axis=2)  # [s, n, item]
        weight = self.valid[:, :, None, None].astype(np.float64)
        count = np.maximum(weight.sum(axis=0), 1.0)
        x = np.eye(size)[position]  # [s, n, item, position]
        x = (x - (weight * x).sum(axis=0) / count) * weight
        y = rank[..., None].astype(np.float64)
        y = (y - (weight * y).sum(axis=0) / count) * weight
        x, y = x.reshape(-1, size), y.reshape(-1)
        found: NDArray[np.float64] = np.linalg.lstsq(x.T @ x, x.T @ y, rcond=1e-9)[0]  # of least norm: orthogonal to a constant
        return np.round(found, 9) + 0.0

    def summary(self) -> dict[str, Any]:
        """For JSON. n: pairs (slate, shuffle) valid in both presentations; the first four figures are over them, the rest over all valid.

        new_position: mean new position (from 0) by incoming position, item held fixed. slope: of it; 1 = keeps positions, 0 = blind.
        position_share: variance of new_position over that of the ranks themselves; 0 = blind, 1 = nothing but position counts.
        """
        size, shuffled = self.shown.shape[2], range(1, len(self.shown))
        both = [self.valid[0] & self.valid[j] for j in shuffled]
        n = int(sum(own.sum() for own in both))
        found: dict[str, Any] = {"n": n, "valid_share": self.valid.mean(axis=1).tolist()}
        if n == 0:
            return found
        pairs = [(self.answered[0][own], self.answered[j][own]) for j, own in zip(shuffled, both, strict=True)]
        before, after = (np.concatenate(part) for part in zip(*pairs, strict=True))
        target = np.concatenate([self.target_rank[own] for own in both])[:, None]
        effects, centred = self.effects(), np.arange(size) - (size - 1) / 2
        variance = float(centred @ centred)
        return found | {
            "changed_share": float((before != after).any(axis=1).mean()),
            "first_changed_share": float((before[:, 0] != after[:, 0]).mean()),
            "kendall_tau": float(kendall_tau(before, after).mean()),
            "target_rank": {
                "incoming": float((before == target).argmax(axis=1).mean()),
                "shuffled": float((after == target).argmax(axis=1).mean()),
            },
            "new_position": ((size - 1) / 2 + effects).tolist(),
            "slope": float(effects @ centred) / variance,
            "position_share": float(effects @ effects) / variance,
        }


def position_bias(answer: Answerer, slates: Sequence[Slate], seed: int, repeats: int = 1, incoming: Judged | None = None) -> PositionBias:
    """Asks `answer` for `repeats` shuffles of `slates` (all in one call), and for the slates as they are unless `incoming` has that.

    All slates must be of one size and hold their target.
    """
    orders = [shuffles(slates, seed, repeat) for repeat in range(repeats)]
    asked = [permuted(slate, order) for own in orders for slate, order in zip(slates, own.tolist(), strict=True)]
    as_is = answer(slates) if incoming is None else incoming
    given = answer(asked)
    n, size = orders[0].shape
    if as_is.orders.shape != (n, size) or given.orders.shape != (n * repeats, size):
        raise StageError(
            f"answers of shape {as_is.orders.shape} and {given.orders.shape} for {n} slates of {size}; answer every slate asked"
        )
    shown = np.stack([np.broadcast_to(np.arange(size), (n, size)), *orders])
    positions = np.concatenate([as_is.orders, given.orders]).reshape(repeats + 1, n, size)
    valid = np.concatenate([as_is.valid, given.valid]).reshape(repeats + 1, n)
    return PositionBias(shown, np.take_along_axis(shown, positions, axis=2), valid, np.array([slate.target_rank for slate in slates]))

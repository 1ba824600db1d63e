"""Does a ranker look at the items, or at their positions? The same candidates in shuffled orders, features and all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from stages.report.diagnostics.audit import kendall_tau
from stages.report.diagnostics.audit_figures import PositionEffects
from stages.shared.core.errors import StageError
from stages.shared.slates.reranking.rankings import Rankings

Ints = NDArray[np.int_]


@dataclass(frozen=True)
class PositionBias:
    """Presentation 0 is the initial ranking, the others are shuffled. All in items (initial ranks), so that presentations compare.

    shown [s, n, K]: the item at each position; answered [s, n, K]: the items, best first; valid [s, n]; target_rank [n]. sizes [n]:
    candidates of each slate, None = K of all; the places behind the end of a slate hold the same item in every order, and so say nothing.
    """

    shown: Ints
    answered: Ints
    valid: NDArray[np.bool_]
    target_rank: Ints
    sizes: Ints | None = None

    @classmethod
    def of(
        cls, greedy: Rankings, shown: Sequence[Ints], shuffled: Sequence[Rankings], target_rank: Ints, sizes: Ints | None = None
    ) -> Self:
        """greedy: on the n slates as they came; shuffled: a Rankings for each [n, K] of `shown`. All orders are initial ranks."""
        n, size = greedy.orders.shape
        for order, rankings in zip(shown, shuffled, strict=True):
            if not order.shape == rankings.orders.shape == (n, size):
                raise StageError(
                    f"answers of shape {rankings.orders.shape} to slates of shape {order.shape}, and {n} answers of {size} to the slates "
                    "as they came; answer the same slates in every order"
                )
        return cls(
            shown=np.stack([np.broadcast_to(np.arange(size), (n, size)), *shown]),
            answered=np.stack([greedy.orders, *(rankings.orders for rankings in shuffled)]),
            valid=np.stack([greedy.valid, *(rankings.valid for rankings in shuffled)]),
            target_rank=np.asarray(target_rank),
            sizes=sizes,
        )

    def effects(self) -> NDArray[np.float64]:
        """[K]: by how much a position moves the new rank of whatever item stands there; the sum is 0.

        Least squares of new rank on position with a level for each item of each slate (fixed effects, the within estimator), so
        each item is compared with itself only. Exactly 0 for a ranker blind to positions.
        """
        size = self.shown.shape[2]
        position, rank = np.argsort(self.shown, axis=2), np.argsort(self.answered, axis=2)  # [s, n, item]
        weight = self.valid[:, :, None, None].astype(np.float64)
        # An item of a slate without any valid presentation has weight 0 everywhere; the 1 only avoids 0 / 0.
        count = np.maximum(weight.sum(axis=0), 1.0)
        x = np.eye(size)[position]  # [s, n, item, position]
        # Minus the item's own mean: what makes one item better than another drops out.
        x = (x - (weight * x).sum(axis=0) / count) * weight
        y = rank[..., None].astype(np.float64)
        y = (y - (weight * y).sum(axis=0) / count) * weight
        x, y = x.reshape(-1, size), y.reshape(-1)
        effects: NDArray[np.float64] = np.linalg.lstsq(x.T @ x, x.T @ y, rcond=1e-9)[0]  # of least norm: orthogonal to a constant
        return np.round(effects, 9) + 0.0

    def summary(self) -> PositionEffects:
        """For JSON. n: pairs (slate, shuffle) valid in both presentations; the first four figures are over them, the rest over all valid.

        new_position: mean new position (from 0) by incoming position, item held fixed. slope: of it; 1 = keeps positions, 0 = blind.
        position_share: variance of new_position over that of the ranks themselves; 0 = blind, 1 = nothing but position counts.
        """
        size, shuffled = self.shown.shape[2], range(1, len(self.shown))
        both_valid = [self.valid[0] & self.valid[j] for j in shuffled]
        n = int(sum(mask.sum() for mask in both_valid))
        figures: PositionEffects = {"n": n, "valid_share": self.valid.mean(axis=1).tolist()}
        if n == 0:
            return figures
        pairs = [(self.answered[0][mask], self.answered[j][mask]) for j, mask in zip(shuffled, both_valid, strict=True)]
        before, after = (np.concatenate(part) for part in zip(*pairs, strict=True))
        target = np.concatenate([self.target_rank[mask] for mask in both_valid])[:, None]
        sizes = None if self.sizes is None else np.concatenate([self.sizes[mask] for mask in both_valid])
        effects, centred = self.effects(), np.arange(size) - (size - 1) / 2
        variance = float(centred @ centred)
        return {
            **figures,
            "changed_share": float((before != after).any(axis=1).mean()),
            "first_changed_share": float((before[:, 0] != after[:, 0]).mean()),
            "kendall_tau": float(kendall_tau(before, after, sizes).mean()),
            "target_rank": {
                "incoming": float((before == target).argmax(axis=1).mean()),
                "shuffled": float((after == target).argmax(axis=1).mean()),
            },
            "new_position": ((size - 1) / 2 + effects).tolist(),
            "slope": float(effects @ centred) / variance,
            "position_share": float(effects @ effects) / variance,
        }

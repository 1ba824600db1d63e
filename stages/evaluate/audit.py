"""What a model does to the orders it is given, beyond its score: does it copy, repeat itself, favour positions, break the format?"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int_]
Bools = NDArray[np.bool_]


def identical_to_incoming(orders: Ints) -> Bools:
    """orders [n, K] -> [n]: the output is the incoming order again."""
    same: Bools = np.all(orders == np.arange(orders.shape[1]), axis=1)
    return same


def invalid_by_kind(kinds: Sequence[str]) -> dict[str, float]:
    """kinds [n]: why each output is not a permutation, empty where it is one -> share of all outputs, by kind."""
    counts = Counter(kind for kind in kinds if kind)
    return {kind: counts[kind] / len(kinds) for kind in sorted(counts)}


def rank_flow(target_rank: Ints, new_rank: Ints, slate_size: int) -> Ints:
    """[K, K]: slates whose target came in at rank row and left at rank column (from 0)."""
    flow = np.zeros((slate_size, slate_size), dtype=np.int_)
    np.add.at(flow, (target_rank, new_rank), 1)
    return flow


def gain_by_incoming_rank(flow: Ints) -> list[dict[str, float]]:
    """Mean new rank of the targets that came in at each rank (from 0); ranks at which none came in are left out.

    A model that earns its mean by lifting the last and sinking the first shows it here.
    """
    ranks = np.arange(len(flow))
    rows = []
    for rank, counts in enumerate(flow):
        if n := int(counts.sum()):
            mean = float(counts @ ranks / n)
            rows.append({"incoming_rank": rank, "n": n, "mean_new_rank": mean, "gain": rank - mean})
    return rows


def position_histogram(orders: Ints) -> Ints:
    """[K, K]: how often incoming position row is put at new position column; even where the model looks at items, not positions."""
    size = orders.shape[1]
    return np.stack([np.bincount(orders[:, column], minlength=size) for column in range(size)], axis=1)


def commonest_order_share(orders: Ints) -> float:
    """Share of the output seen most often: 1.0 for a model that answers the same whatever it reads."""
    _, counts = np.unique(orders, axis=0, return_counts=True)
    return float(counts.max() / len(orders))


def audit(orders: Ints, target_rank: Ints, new_rank: Ints, kinds: Sequence[str]) -> dict[str, Any]:
    """All of the above for one model, ready for JSON. orders [n, K]; target_rank, new_rank [n]; kinds [n] as in invalid_by_kind."""
    flow = rank_flow(target_rank, new_rank, orders.shape[1])
    return {
        "identity_share": float(identical_to_incoming(orders).mean()),
        "commonest_order_share": commonest_order_share(orders),
        "invalid": invalid_by_kind(kinds),
        "by_incoming_rank": gain_by_incoming_rank(flow),
        "positions": position_histogram(orders).tolist(),
        "rank_flow": flow.tolist(),
    }

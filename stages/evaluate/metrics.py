"""Ranking metrics of slates with one relevant item each: the target, which every slate holds."""

import numpy as np
from numpy.typing import NDArray

from stages.shared.errors import StageError

Ints = NDArray[np.int_]
Floats = NDArray[np.float64]

RECALL_AT = (1, 3, 5)
NDCG_AT = 5
NAMES = (*(f"recall@{k}" for k in RECALL_AT), f"ndcg@{NDCG_AT}", "mrr")


def slate_metrics(rank: Ints) -> dict[str, Floats]:
    """rank [n]: 0-based rank of the target in the new order -> per metric its value [n] on every slate.

    With one relevant item the ideal DCG is 1, so NDCG is the discount of the target's own rank (Järvelin and Kekäläinen 2002).
    """
    rank = np.asarray(rank)
    if rank.size and rank.min() < 0:
        raise StageError(f"slate {int(rank.argmin())}: the target is not among its candidates; leave such slates out before measuring")
    values = {f"recall@{k}": (rank < k).astype(np.float64) for k in RECALL_AT}
    values[f"ndcg@{NDCG_AT}"] = np.where(rank < NDCG_AT, 1 / np.log2(rank + 2.0), 0.0)
    values["mrr"] = 1 / (rank + 1.0)
    return values


def ranks_of_targets(orders: Ints, target_rank: Ints) -> Ints:
    """Where each target stands in the new order, from 0: [n].

    orders [n, K]: row i lists positions of slate i's incoming order, best first. target_rank [n]: the target's incoming position.
    """
    orders, target_rank = np.asarray(orders), np.asarray(target_rank)
    broken = np.flatnonzero((np.sort(orders, axis=1) != np.arange(orders.shape[1])).any(axis=1))
    if broken.size:
        raise StageError(
            f"slate {int(broken[0])}: {orders[broken[0]].tolist()} is not a permutation of its {orders.shape[1]} candidates; "
            "give an invalid output the order it counts as before measuring"
        )
    outside = np.flatnonzero((target_rank < 0) | (target_rank >= orders.shape[1]))
    if outside.size:
        raise StageError(f"slate {int(outside[0])}: the target is not among its candidates; leave such slates out before measuring")
    rank: Ints = np.argmax(orders == target_rank[:, None], axis=1)
    return rank

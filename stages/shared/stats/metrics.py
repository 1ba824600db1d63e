"""Ranking metrics of slates with one relevant item each, the target, or with several that have grades; and what a ranker did to their
initial ranks."""

import numpy as np
from numpy.typing import NDArray

from stages.shared.core.errors import StageError

Ints = NDArray[np.int_]
Floats = NDArray[np.float64]

RECALL_AT = (1, 3, 5, 10)
NDCG_AT = (3, 5, 10)
QUALITY = (*(f"recall@{k}" for k in RECALL_AT), *(f"ndcg@{k}" for k in NDCG_AT), "mrr")
MOVEMENT = ("rank_gain", "promoted", "demoted")
METRICS = (*QUALITY, *MOVEMENT)
NAMES = ("recall@1", "recall@3", "recall@5", "ndcg@5", "mrr")  # those that the tables of the report show


def slate_metrics(rank: Ints) -> dict[str, Floats]:
    """rank [n]: 0-based rank of the target in the new order -> for each name of QUALITY its value [n] on every slate.

    With one relevant item the ideal DCG is 1, so NDCG is the discount of the target's own rank (Järvelin and Kekäläinen 2002).
    """
    rank = np.asarray(rank)
    _check_ranks(rank)
    values = {f"recall@{k}": (rank < k).astype(np.float64) for k in RECALL_AT}
    values |= {f"ndcg@{k}": np.where(rank < k, 1 / np.log2(rank + 2.0), 0.0) for k in NDCG_AT}
    values["mrr"] = 1 / (rank + 1.0)
    return values


def movement(rank: Ints, target_rank: Ints) -> dict[str, Floats]:
    """rank, target_rank [n]: 0-based, in the new and in the initial ranking -> for each name of MOVEMENT its value [n].

    rank_gain: places the target went up (below zero: down). promoted, demoted: 1 where it went up, or down.
    """
    rank, target_rank = np.asarray(rank), np.asarray(target_rank)
    _check_ranks(rank)
    _check_ranks(target_rank)
    gain = (target_rank - rank).astype(np.float64)
    return {"rank_gain": gain, "promoted": (gain > 0).astype(np.float64), "demoted": (gain < 0).astype(np.float64)}


def all_metrics(rank: Ints, target_rank: Ints) -> dict[str, Floats]:
    """For each name of METRICS, in that order, its value [n]; arguments as for `movement`."""
    return slate_metrics(rank) | movement(rank, target_rank)


def order_metrics(orders: Ints, target_rank: Ints, grades: Ints | None = None) -> dict[str, Floats]:
    """orders [n, K]: initial ranks, best first; target_rank [n], or grades [n, K] by initial rank -> each of METRICS, its value [n]."""
    if grades is None:
        return all_metrics(ranks_of_targets(orders, target_rank), target_rank)
    return graded_metrics(orders, grades)


def graded_metrics(orders: Ints, grades: Ints) -> dict[str, Floats]:
    """The same with several relevant candidates: grades [n, K] by initial rank, 0 = not relevant, at least one above it in each row.

    recall@k: share of the relevant within the first k; ndcg@k: gains 2^grade - 1, over the best order of the slate (Burges et al. 2005);
    mrr: of the first relevant; rank_gain: mean over the relevant. With one relevant candidate each is what all_metrics gives, whatever
    its grade.
    """
    orders, grades = np.asarray(orders), np.asarray(grades)
    relevant = grades > 0
    if bare := np.flatnonzero(~relevant.any(axis=1)).tolist():
        raise StageError(f"slate {bare[0]}: no candidate has a grade; leave such slates out before measuring")
    places = np.arange(orders.shape[1])
    gains, discounts = 2.0 ** np.take_along_axis(grades, orders, axis=1) - 1, 1 / np.log2(places + 2.0)
    ideal = -np.sort(-gains, axis=1)
    hits, count = np.take_along_axis(relevant, orders, axis=1), relevant.sum(axis=1)
    values = {f"recall@{k}": hits[:, :k].sum(axis=1) / count for k in RECALL_AT}
    values |= {f"ndcg@{k}": (gains[:, :k] @ discounts[:k]) / (ideal[:, :k] @ discounts[:k]) for k in NDCG_AT}
    values["mrr"] = 1 / (hits.argmax(axis=1) + 1.0)
    new_rank = np.argsort(orders, axis=1)  # [n, K], by initial rank
    gain = np.where(relevant, places - new_rank, 0).sum(axis=1) / count
    values["rank_gain"] = gain
    return values | {"promoted": (gain > 0).astype(np.float64), "demoted": (gain < 0).astype(np.float64)}


def ranks_of_targets(orders: Ints, target_rank: Ints) -> Ints:
    """Where each target stands in the new order, from 0: [n].

    orders [n, K]: row i lists positions of slate i's initial ranking, best first. target_rank [n]: the target's incoming position.
    """
    orders, target_rank = np.asarray(orders), np.asarray(target_rank)
    # Checked first: argmax would find rank 0 for a target that a broken order does not hold.
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


def _check_ranks(rank: Ints) -> None:
    if rank.size and rank.min() < 0:
        raise StageError(f"slate {int(rank.argmin())}: the target is not among its candidates; leave such slates out before measuring")

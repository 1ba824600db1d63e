"""What can be changed about a batch of slates on request: targets put in, hard negatives, another order, labels that say nothing.

Shapes: N slates, K candidates, P further candidates of the retriever (the pool, beyond the top K, best first).
"""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import scipy.sparse as sp

from stages.shared.core.errors import StageError
from stages.shared.core.leakage import HELD_OUT


@dataclass(frozen=True)
class Batch:
    items_NK: np.ndarray
    scores_NK: np.ndarray
    target_N: np.ndarray
    rank_N: np.ndarray  # -1: the slate misses its target
    injected_N: np.ndarray  # bool
    hard_NK: np.ndarray  # bool: a place given to a hard negative

    @classmethod
    def of(cls, items_NK: np.ndarray, scores_NK: np.ndarray, target_N: np.ndarray) -> "Batch":
        hit_NK = items_NK == target_N[:, None]
        rank_N = np.where(hit_NK.any(axis=1), hit_NK.argmax(axis=1), -1).astype(np.int32)
        return cls(items_NK, scores_NK, target_N, rank_N, np.zeros(len(target_N), dtype=bool), np.zeros_like(hit_NK))


def inject(batch: Batch, train_N: np.ndarray, pool_NP: np.ndarray, pool_scores_NP: np.ndarray) -> Batch:
    """Training slates without their target get it in the last place, with its own score; deeper than the pool, with the pool's last."""
    rows = np.flatnonzero(train_N & (batch.rank_N < 0))
    items, scores = batch.items_NK.copy(), batch.scores_NK.copy()
    rank, injected = batch.rank_N.copy(), batch.injected_N.copy()
    pool_scores = pool_scores_NP[rows]
    is_target = (pool_NP[rows] == batch.target_N[rows, None]) & np.isfinite(pool_scores)
    bound = np.where(is_target, pool_scores, np.inf).min(axis=1, initial=np.inf)
    deepest = np.where(np.isfinite(pool_scores), pool_scores, np.inf).min(axis=1, initial=np.inf)
    # An empty pool leaves infinity, and so the score of the place itself.
    scores[rows, -1] = np.minimum(scores[rows, -1], np.where(np.isfinite(bound), bound, deepest))
    items[rows, -1], rank[rows], injected[rows] = batch.target_N[rows], items.shape[1] - 1, True
    return replace(batch, items_NK=items, scores_NK=scores, rank_N=rank, injected_N=injected)


def add_hard_negatives(
    batch: Batch, train_N: np.ndarray, pool_NP: np.ndarray, pool_scores_NP: np.ndarray, category: sp.csr_matrix, count: int
) -> Batch:
    """Training slates that hold their target get look-alikes of it from the pool in the `count` lowest places that do not hold it.

    Look-alikes share most categories and brand with the target (cosine of the rows of `category`), ties by retriever score. They
    keep their scores, except that a look-alike placed above the target gets at least the target's: scores never rise along a slate.
    """
    rows = np.flatnonzero(train_N & (batch.rank_N >= 0))
    items, scores, hard = batch.items_NK.copy(), batch.scores_NK.copy(), batch.hard_NK.copy()
    pool, pool_scores = pool_NP[rows], pool_scores_NP[rows]
    usable = np.isfinite(pool_scores) & (pool != batch.target_N[rows, None])
    left, right = category[np.where(usable, pool, 0).ravel()], category[batch.target_N[rows].repeat(pool.shape[1])]
    alike = np.asarray(left.multiply(right).sum(axis=1)).reshape(pool.shape).round(5)  # equal sets, equal cosines
    best = np.lexsort((-pool_scores, np.where(usable, -alike, np.inf)), axis=1)
    for number, row in enumerate(rows):
        chosen = best[number, :count][usable[number, best[number, :count]]]
        chosen.sort()  # the pool is in the order of scores
        others = np.delete(np.arange(items.shape[1]), batch.rank_N[row])
        free = others[len(others) - len(chosen) :]
        items[row, free], scores[row, free], hard[row, free] = pool[number, chosen], pool_scores[number, chosen], True
        scores[row] = np.maximum.accumulate(scores[row, ::-1])[::-1]
    return replace(batch, items_NK=items, scores_NK=scores, hard_NK=hard)


def shuffle(batch: Batch, slate_N: np.ndarray, seed: int) -> Batch:
    """Each slate in an order that its id alone settles; scores, target's rank and hard places move along."""
    k = batch.items_NK.shape[1]
    order_NK = np.stack([np.random.default_rng([seed, slate]).permutation(k) for slate in slate_N.tolist()])
    rank = np.where(batch.rank_N >= 0, (order_NK == batch.rank_N[:, None]).argmax(axis=1), -1).astype(np.int32)
    items, scores, hard = (np.take_along_axis(part, order_NK, axis=1) for part in (batch.items_NK, batch.scores_NK, batch.hard_NK))
    return replace(batch, items_NK=items, scores_NK=scores, hard_NK=hard, rank_N=rank)


def permute_labels(slates: pl.DataFrame, interactions: pl.DataFrame, seed: int) -> pl.DataFrame:
    """A control: the ranks of the targets, permuted among the training slates that hold them; the candidate there becomes the target.

    The distribution of ranks stays, all else is noise. A rank never falls on an item that the user has in a held-out split, as no
    real training target does: later stages rightly refuse to learn such a pair.
    """
    is_eligible = pl.col("split").eq("train") & pl.col("target_rank").ge(0)
    eligible = slates.filter(is_eligible)
    if eligible.is_empty():
        return slates
    candidates_NK = np.array(eligible["candidates"].to_list(), dtype=np.int64)
    rank_N = permuted(eligible["target_rank"].to_numpy(), _held_out(eligible["user"].to_numpy(), candidates_NK, interactions), seed)
    # The candidate that becomes the target is no negative any more.
    hard = [
        [hard_rank for hard_rank in hard_ranks if hard_rank != rank]
        for hard_ranks, rank in zip(eligible["hard"].to_list(), rank_N.tolist(), strict=True)
    ]
    changes = {
        "slate": eligible["slate"],
        "target": candidates_NK[np.arange(eligible.height), rank_N].astype(np.int32),
        "target_rank": rank_N,
        "provenance": ["permuted"] * eligible.height,
        "hard": pl.Series(hard, dtype=pl.List(pl.Int32)),
    }
    return slates.update(pl.DataFrame(changes), on="slate", maintain_order="left")


def permuted(rank_N: np.ndarray, taboo_NK: np.ndarray, seed: int) -> np.ndarray:
    """`rank_N` in a random order that puts none where `taboo_NK` holds: a free permutation, then each bad one swapped with another."""
    rng = np.random.default_rng(seed)
    ranks, rows = rng.permutation(rank_N), np.arange(len(rank_N))
    for row in np.flatnonzero(taboo_NK[rows, ranks]):
        if not taboo_NK[row, ranks[row]]:
            continue  # repaired by an earlier swap
        partners = np.flatnonzero(~taboo_NK[:, ranks[row]] & ~taboo_NK[row, ranks])
        if not partners.size:
            raise StageError(
                f"retrieve.labels permuted: training slate {row} of {len(rows)} that hold their target can take no other's rank without "
                "naming a held-out item; more users or fewer candidates are needed"
            )
        other = rng.choice(partners)
        ranks[row], ranks[other] = ranks[other], ranks[row]
    return ranks


def _held_out(user_N: np.ndarray, candidates_NK: np.ndarray, interactions: pl.DataFrame) -> np.ndarray:
    held = interactions.filter(pl.col("split").is_in(HELD_OUT))
    size = max(int(candidates_NK.max()), int(interactions["item"].to_numpy().max())) + 1
    keys = held["user"].to_numpy().astype(np.int64) * size + held["item"].to_numpy()
    return np.isin(user_N.astype(np.int64)[:, None] * size + candidates_NK, keys)

"""The retriever `item_knn`: the items whose users are most like those of the last items taken.

Cosine of the items' user sets, shrunk where few users are in common: c_ij = n_ij / sqrt(n_i n_j) * n_ij / (n_ij + shrinkage)
(Sarwar et al. 2001; shrinkage as in Bell and Koren 2007). An item's score is the sum over the last `last` items of a history of
similarity * decay^(steps back), so what was taken last votes most.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp
from safetensors.numpy import save_file

from stages.retrieve.params import ItemKnnParams
from stages.retrieve.retrievers.popularity import Popularity
from stages.retrieve.retrievers.retriever import Figures
from stages.shared.recsys.ragged import flatten

PRODUCTS = 2**24  # products of a block of items with all others are bounded by this, whatever the catalogue
BATCH = 512


class ItemKnn:
    """`similarity`: float32 [items, items], row: the item that votes; only its nearest are kept. Items without a vote come last,
    at score 0, the most popular first."""

    def __init__(self, similarity: sp.csr_matrix, popularity: Popularity, last: int, decay: float):
        self.similarity, self.popularity, self.last, self.decay = similarity, popularity, last, decay
        self.place = np.empty(len(popularity.order), dtype=np.int64)  # of each item in the order of popularity
        self.place[popularity.order] = np.arange(len(popularity.order))

    def top_k(self, histories: Sequence[Sequence[int]], seen: Sequence[Sequence[int]], k: int) -> tuple[np.ndarray, np.ndarray]:
        batches = [self._batch(histories[s : s + BATCH], seen[s : s + BATCH], k) for s in range(0, len(histories), BATCH)]
        return np.concatenate([items for items, _ in batches]), np.concatenate([scores for _, scores in batches])

    def _batch(self, histories: Sequence[Sequence[int]], seen: Sequence[Sequence[int]], k: int) -> tuple[np.ndarray, np.ndarray]:
        count, items = len(histories), self.similarity.shape[0]
        votes = self._votes(histories) @ self.similarity
        voted = votes.tocoo()
        spare_BK, spare_scores_BK = self.popularity.most_counted(seen, k)
        spare = np.flatnonzero(np.isfinite(spare_scores_BK))
        # (row, item) as one number; of a pair that occurs twice the first is kept, so a vote wins over a spare place.
        pairs = np.r_[voted.row.astype(np.int64) * items + voted.col, spare // k * items + spare_BK.ravel()[spare]]
        scores = np.r_[voted.data, np.zeros(len(spare), np.float32)]
        pairs, first = np.unique(pairs, return_index=True)
        scores = scores[first]
        seen_rows, _, seen_items = flatten(seen)
        open_ = ~np.isin(pairs, seen_rows * items + seen_items)
        rows, columns, scores = pairs[open_] // items, pairs[open_] % items, scores[open_]

        order = np.lexsort((self.place[columns], -scores, rows))
        rows, columns, scores = rows[order], columns[order], scores[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        best = rank < k
        items_BK = np.zeros((count, k), dtype=np.int32)
        scores_BK = np.full((count, k), -np.inf, dtype=np.float32)
        items_BK[rows[best], rank[best]] = columns[best]
        scores_BK[rows[best], rank[best]] = scores[best]
        return items_BK, scores_BK

    def _votes(self, histories: Sequence[Sequence[int]]) -> sp.csr_matrix:
        """[B, items]: the weight with which each item of a history votes; one that occurs twice votes twice."""
        rows, positions, values = flatten([history[-self.last :] for history in histories])
        lengths = np.bincount(rows, minlength=len(histories))
        weights = (self.decay ** (lengths[rows] - 1 - positions)).astype(np.float32)
        return sp.csr_matrix((weights, (rows, values)), shape=(len(histories), self.similarity.shape[0]))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        near = self.similarity
        arrays = {"offsets": near.indptr.astype(np.int64), "items": near.indices.astype(np.int32), "similarity": near.data}
        save_file({**arrays, "counts": self.popularity.counts}, folder / "item_knn.safetensors")


def fit(params: ItemKnnParams, training: pl.DataFrame, items: int) -> tuple[ItemKnn, Figures]:
    users, columns = training["user"].to_numpy(), training["item"].to_numpy()
    similarity = nearest(users, columns, items, params.neighbours, params.shrinkage)
    popularity = Popularity(np.bincount(columns, minlength=items))
    return ItemKnn(similarity, popularity, params.last, params.decay), {"similarities": int(similarity.nnz)}


def nearest(users: np.ndarray, columns: np.ndarray, items: int, neighbours: int, shrinkage: float) -> sp.csr_matrix:
    """float32 [items, items]: of each row the `neighbours` greatest similarities above 0, itself left out; equals by their number."""
    shape = (int(users.max()) + 1, items)
    taken = sp.csr_matrix((np.ones(len(users), np.float32), (users, columns)), shape=shape)
    taken.data[:] = 1.0  # repeats count once
    by_item = sp.csr_matrix(taken.T)
    counts = np.diff(by_item.indptr).astype(np.float32)
    # Row i of by_item @ taken takes as many products as the users of i have items: blocks are cut where these fill up.
    work = np.cumsum(by_item @ np.diff(taken.indptr).astype(np.float64))
    cuts = np.unique(np.searchsorted(work, np.arange(PRODUCTS, work[-1], PRODUCTS), side="right"))
    cuts = cuts[cuts > 0]
    blocks = []
    for start, stop in zip(np.r_[0, cuts], np.r_[cuts, items], strict=True):
        together = (by_item[start:stop] @ taken).tocoo()
        rows, others, common = together.row.astype(np.int64), together.col.astype(np.int64), together.data
        apart = rows + start != others
        rows, others, common = rows[apart], others[apart], common[apart]
        similarity = common / np.sqrt(counts[rows + start] * counts[others]) * (common / (common + shrinkage))
        order = np.lexsort((others, -similarity, rows))
        rows, others, similarity = rows[order], others[order], similarity[order]
        kept = np.arange(len(rows)) - np.searchsorted(rows, rows) < neighbours
        block = (similarity[kept].astype(np.float32), (rows[kept], others[kept]))
        blocks.append(sp.csr_matrix(block, shape=(stop - start, items)))
    return sp.csr_matrix(sp.vstack(blocks, format="csr"))

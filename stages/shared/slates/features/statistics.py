"""What the candidate features count: co-occurrence, transitions, popularity and recency, from training interactions only."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp

from stages.shared.slates.features.kinds import Kinds, count_kinds

TRANSITION_STEPS = 3
LATE_SHARE = 0.25
SMOOTHING = 5.0  # pseudo-counts: a pair seen once between two rare items is weak evidence
# Sources without times number each user's sequence from 0 (stages/ingest): no moment is so early, no sequence so long.
FIRST_MOMENT = 1_000_000


@dataclass(frozen=True)
class Statistics:
    """Item-item matrices are sparse [items, items]; vectors are [items]."""

    cooccurrence: sp.csr_matrix  # cosine of the items' user sets
    transition: sp.csr_matrix  # row: from, column: to
    popularity: np.ndarray  # users, int64
    log_count: np.ndarray
    recency: np.ndarray  # share of interactions in the last quarter, smoothed to the mean share; that share for all where times say nothing
    category: sp.csr_matrix  # [items, categories and brands], rows of unit length
    kinds: Kinds


def count(interactions: pl.DataFrame, items: pl.DataFrame) -> Statistics:
    """`interactions`: the rows to count (sorted by user, then position), never a held-out one."""
    users, columns = interactions["user"].to_numpy(), interactions["item"].to_numpy()
    n_users, n_items = int(users.max()) + 1, items.height
    taken = sp.csr_matrix((np.ones(len(users), np.float32), (users, columns)), shape=(n_users, n_items))
    taken.data[:] = 1.0  # repeats count once
    popularity = np.asarray(taken.sum(axis=0)).ravel()

    together = taken.T @ taken
    together = together - sp.diags(together.diagonal())  # leaves no explicit zeros
    transition = sp.csr_matrix((n_items, n_items), dtype=np.float32)
    for step in range(1, TRANSITION_STEPS + 1):
        same = users[:-step] == users[step:]
        pairs = (columns[:-step][same], columns[step:][same])
        transition = transition + sp.csr_matrix((np.full(same.sum(), 1.0 / step, np.float32), pairs), shape=(n_items, n_items))

    return Statistics(
        cooccurrence=_cosine(together, popularity, 1.0),
        transition=_cosine(transition, popularity, SMOOTHING),
        popularity=popularity.astype(np.int64),
        log_count=np.log1p(popularity).astype(np.float32),
        recency=_recency(interactions["timestamp"].to_numpy(), columns, popularity),
        category=_categories(items),
        kinds=count_kinds(users, columns, items),
    )


def tells_time(time: np.ndarray) -> bool:
    """Places in a sequence and times all alike tell no late interaction from an early one."""
    return bool(time.max() >= FIRST_MOMENT and time.min() < time.max())


def _recency(time: np.ndarray, columns: np.ndarray, popularity: np.ndarray) -> np.ndarray:
    """Without times every item has the mean share."""
    if not tells_time(time):
        return np.full(len(popularity), LATE_SHARE, dtype=np.float32)
    late = time >= np.quantile(time, 1 - LATE_SHARE)
    late_counts = np.bincount(columns[late], minlength=len(popularity))
    return ((late_counts + LATE_SHARE * SMOOTHING) / (popularity + SMOOTHING)).astype(np.float32)


def _cosine(counts: sp.csr_matrix, popularity: np.ndarray, smoothing: float) -> sp.csr_matrix:
    scale = sp.diags((1.0 / np.sqrt(popularity + smoothing)).astype(np.float32))
    scaled = sp.csr_matrix(scale @ counts @ scale)
    scaled.sort_indices()  # so that single elements are found by bisection
    return scaled


def _categories(items: pl.DataFrame) -> sp.csr_matrix:
    names = [
        [*(f"c:{category}" for category in categories or []), *([f"b:{brand}"] if brand else [])]
        for categories, brand in zip(items["categories"].to_list(), items["brand"].to_list(), strict=True)
    ]
    index = {name: column for column, name in enumerate(sorted({name for row in names for name in row}))}
    rows = [row for row, item_names in enumerate(names) for _ in item_names]
    columns = [index[name] for item_names in names for name in item_names]
    matrix = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(names), max(1, len(index))))
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sp.csr_matrix(sp.diags((1.0 / np.maximum(length, 1e-6)).astype(np.float32)) @ matrix)

"""The features of each candidate of a slate, their bins, and the table of both."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import scipy.sparse as sp

from stages.shared.core.errors import StageError
from stages.shared.core.progress import tracked
from stages.shared.slates.candidate_features import FEATURES, schema_with
from stages.shared.slates.features.kinds import MEMORY
from stages.shared.slates.features.statistics import Statistics
from stages.shared.slates.reranking.padding import padded, places

RECENT_TRANSITIONS = 10
BATCH = 2048  # slates; the largest array of a batch has as many times K times the items of history looked at


def collect(
    slates: pl.DataFrame,
    candidates: int,
    statistics: Statistics,
    last: int,
    batch: int = BATCH,
    features: Sequence[str] = tuple(FEATURES),
) -> np.ndarray:
    """The `features` of every slate, float32 [slates, candidates, features]; NaN past the end of a slate that has fewer candidates.

    co and ca look at the `last` items of history.
    """
    batches = tracked(slates.iter_slices(batch), "batches of candidate features", -(-slates.height // batch), unit="batch")
    feature_batches = [_features(slate_batch, candidates, statistics, last, features) for slate_batch in batches if slate_batch.height]
    return np.concatenate(feature_batches) if feature_batches else np.zeros((0, candidates, len(features)), dtype=np.float32)


def _features(slates: pl.DataFrame, candidates: int, statistics: Statistics, last: int, features: Sequence[str]) -> np.ndarray:
    """Single elements of the item-item matrices are looked up: a product with them would fill rows of which K places are wanted."""
    listed = slates["candidates"].to_list()
    items_NK = padded(listed, 0, np.int32, candidates)
    scores_NK = padded(slates["scores"].to_list(), -np.inf, np.float32, candidates)
    recent_NL, length_N = _tails(slates["history"], last)
    steps_NT, _ = _tails(slates["history"], RECENT_TRANSITIONS)
    together_NK = _between(statistics.cooccurrence, recent_NL, items_NK) / length_N[:, None].astype(np.float32)
    follows_NK = _between(statistics.transition, steps_NT, items_NK)
    columns = {
        "co": together_NK,
        "tr": follows_NK,
        "ca": _shared(statistics.category, recent_NL, length_N, items_NK),
        "po": statistics.log_count[items_NK],
        "re": statistics.recency[items_NK],
        "sc": scores_NK - scores_NK.max(axis=1, keepdims=True),
    }
    if len(features) > len(columns):
        last_NM = _tails(slates["history"].list.reverse().list.head(MEMORY), MEMORY)[0]
        columns |= {"fo": statistics.kinds.follows(last_NM, items_NK), "br": statistics.kinds.same_brand(last_NM, items_NK)}
    values_NKF = np.stack([columns[feature] for feature in features], axis=2).astype(np.float32)
    values_NKF[~places(listed, candidates)] = np.nan
    return values_NKF


def _tails(histories: pl.Series, last: int) -> tuple[np.ndarray, np.ndarray]:
    """The last items of each history, oldest first, filled up with -1 at the end: [N, L], and how many they are [N]."""
    tails = histories.list.tail(last)
    length_N = tails.list.len().to_numpy()
    tails_NL = np.full((len(tails), int(length_N.max())), -1, dtype=np.int32)
    tails_NL[np.arange(tails_NL.shape[1]) < length_N[:, None]] = tails.explode().to_numpy()
    return tails_NL, length_N


def _between(matrix: sp.csr_matrix, past_NL: np.ndarray, items_NK: np.ndarray) -> np.ndarray:
    """Sum of matrix[past, found] over a slate's past, float32 [N, K]."""
    rows, columns = np.broadcast_arrays(past_NL[:, :, None], items_NK[:, None, :])
    values = _elements(matrix, np.maximum(rows, 0).ravel(), columns.ravel()).reshape(rows.shape)
    return np.where(rows >= 0, values, 0).sum(axis=1, dtype=np.float32)


def _elements(matrix: sp.csr_matrix, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """matrix[rows[i], columns[i]] for every i; scipy's own answer to none at all is sparse."""
    return np.asarray(matrix[rows, columns]).ravel() if len(rows) else np.zeros(0, dtype=np.float32)


def _shared(category: sp.csr_matrix, past_NL: np.ndarray, length_N: np.ndarray, items_NK: np.ndarray) -> np.ndarray:
    """Product of each candidate's row of `category` with the mean row of a slate's past, [N, K]."""
    # Built by its parts, so that the past stays in its order: sums of floats keep their last bits.
    weight = np.repeat((1.0 / length_N).astype(np.float32), length_N)
    ends = np.concatenate([[0], np.cumsum(length_N, dtype=np.int64)])
    mean_row = sp.csr_matrix((weight, past_NL[past_NL >= 0], ends), shape=(len(past_NL), category.shape[0])) @ category
    mean_row.sort_indices()
    terms = category[items_NK.ravel()]
    slate = np.arange(len(items_NK)).repeat(items_NK.shape[1]).repeat(np.diff(terms.indptr))
    terms.data = terms.data * _elements(mean_row, slate, terms.indices)
    return (terms @ np.ones(terms.shape[1], dtype=np.float32)).reshape(items_NK.shape)


def bin_edges(features: np.ndarray, bins: int) -> np.ndarray:
    """Edges of `bins` equally filled buckets, [features, bins - 1], from the features of *training* slates [n, K, features]."""
    if len(features) == 0:
        raise StageError("retrieve: no training slate holds its target; the retriever is too weak or the data too small for candidates=K")
    flat = features.reshape(-1, features.shape[-1])
    flat = flat[~np.isnan(flat).all(axis=1)]
    return np.quantile(flat, np.linspace(0, 1, bins + 1)[1:-1], axis=0).T


def to_bins(features: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Features [..., features] -> int32 bins of the same shape, 0 = least."""
    bins = [np.searchsorted(edges[i], features[..., i], side="right") for i in range(len(edges))]
    return np.stack(bins, axis=-1).astype(np.int32)


def feature_table(slates: pl.DataFrame, values: np.ndarray, bins: np.ndarray, features: Sequence[str] = tuple(FEATURES)) -> pl.DataFrame:
    """One row a candidate of every slate, in the order of the slates. values, bins: [slates, K, features]."""
    n, k, _ = values.shape
    listed = slates["candidates"].to_list()
    present = places(listed, k)
    columns: dict[str, np.ndarray] = {
        "slate": slates["slate"].to_numpy().repeat(present.sum(axis=1)),
        "rank": np.broadcast_to(np.arange(k, dtype=np.int32), (n, k))[present],
        "item": padded(listed, 0, np.int32, k)[present],
    }
    for i, feature in enumerate(features):
        columns[feature] = values[..., i][present]
    for i, feature in enumerate(features):
        columns[f"{feature}_bin"] = bins[..., i][present]
    return pl.DataFrame(columns, schema=schema_with(features))

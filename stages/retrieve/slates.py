"""Slates: the top K of what a user has not taken before a position, made in batches, so memory is bounded by one of them."""

import math

import numpy as np
import polars as pl

from stages.retrieve import augmentations
from stages.retrieve.augmentations import Batch
from stages.retrieve.params import RetrieveParams
from stages.retrieve.retrievers.retriever import Ranker
from stages.shared.core.errors import StageError
from stages.shared.core.progress import tracked
from stages.shared.core.schemas import SLATES
from stages.shared.slates.features.statistics import Statistics

SPLITS = ("train", "valid", "test")  # base is for the retriever to learn from
BATCH = 4096  # slates ranked at once


def slate_positions(interactions: pl.DataFrame, positions: int) -> pl.DataFrame:
    """A row for every slate to be made, by user, then position: slate, user, position, timestamp, split, target, and `row`, where the
    target is in `interactions`. With `positions` only the last so many of each user in each split."""
    later = interactions.with_row_index("row").filter(pl.col("split").is_in(SPLITS) & (pl.col("position") > 0))
    if positions:
        later = later.filter(pl.int_range(pl.len()).reverse().over("user", "split") < positions)
    if later.is_empty():
        raise StageError("data/ingest/interactions.parquet: no position after the base split; users are too short for ingest.base_share")
    slate = pl.int_range(pl.len(), dtype=pl.Int32).alias("slate")
    return later.select(slate, "user", "position", "timestamp", "split", pl.col("item").alias("target"), "row")


def make(
    model: Ranker, positions: pl.DataFrame, interactions: pl.DataFrame, statistics: Statistics, params: RetrieveParams, fold: int
) -> pl.DataFrame:
    """SLATES of the rows `wanted` of `slate_positions`, before any permutation of labels."""
    items = interactions["item"].to_numpy()
    batches = tracked(positions.iter_slices(BATCH), "batches of slates", -(-positions.height // BATCH), unit="batch")
    tables = [_batch(model, position_batch, items, statistics, params, fold) for position_batch in batches if position_batch.height]
    return pl.concat(tables) if tables else pl.DataFrame(schema=SLATES)


def _batch(
    model: Ranker, positions: pl.DataFrame, items: np.ndarray, statistics: Statistics, params: RetrieveParams, fold: int
) -> pl.DataFrame:
    past = [items[row - position : row] for row, position in positions.select("row", "position").iter_rows()]
    histories = [items_before.tolist() for items_before in past]
    k = params.candidates
    pool = params.hard_pool if params.inject_targets or params.hard_negatives else 0
    ranked, scores = model.top_k(histories, histories, min(k + pool, len(statistics.popularity)))
    _require_filled(scores[:, :k], positions, past, len(statistics.popularity))

    batch = Batch.of(ranked[:, :k], scores[:, :k], positions["target"].to_numpy())
    train_N = (positions["split"] == "train").to_numpy()
    if params.inject_targets:
        batch = augmentations.inject(batch, train_N, ranked[:, k:], scores[:, k:])
    if params.hard_negatives:
        batch = augmentations.add_hard_negatives(batch, train_N, ranked[:, k:], scores[:, k:], statistics.category, params.hard_negatives)
    if params.order == "shuffled":
        batch = augmentations.shuffle(batch, positions["slate"].to_numpy(), params.seed)
    columns = {
        **positions.select("slate", "user", "position", "timestamp", "split").to_dict(),
        "history": pl.Series([items_before[-params.history :] for items_before in past], dtype=pl.List(pl.Int32)),
        "candidates": pl.Series(batch.items_NK).arr.to_list(),
        "scores": pl.Series(batch.scores_NK).arr.to_list(),
        "target": batch.target_N,
        "target_rank": batch.rank_N,
        "fold": np.full(positions.height, fold, dtype=np.int32),
        "provenance": np.where(batch.injected_N, "injected", "").tolist(),
        "hard": pl.Series([np.flatnonzero(row).astype(np.int32) for row in batch.hard_NK], dtype=pl.List(pl.Int32)),
    }
    return pl.DataFrame(columns, schema=SLATES)


def _require_filled(scores_NK: np.ndarray, positions: pl.DataFrame, past: list[np.ndarray], items: int) -> None:
    short = np.flatnonzero(~np.isfinite(scores_NK).all(axis=1))
    if not short.size:
        return
    user, position = positions.select("user", "position").row(int(short[0]))
    k = scores_NK.shape[1]
    if items - len(set(past[short[0]].tolist())) < k:
        raise StageError(f"data/ingest/interactions.parquet: user {user} has taken all but fewer than {k} items; lower retrieve.candidates")
    raise StageError(
        f"the retriever found fewer than {k} items for user {user} at position {position}; lower retrieve.candidates or widen its "
        "search (retrieve.language_model.beam)"
    )


def summary(slates: pl.DataFrame, k: int) -> dict[str, dict[str, float | int | list[float]]]:
    """By split: slates, share that holds its target, NDCG@k (one target: 1 / log2(rank + 2), a miss 0), histogram of its ranks (shares)."""
    out: dict[str, dict[str, float | int | list[float]]] = {}
    for split in SPLITS:
        ranks = slates.filter(pl.col("split") == split)["target_rank"].to_numpy()
        hit = ranks[ranks >= 0]
        out[split] = {
            "slates": len(ranks),
            "with_target": len(hit),
            "hit_rate": len(hit) / max(1, len(ranks)),
            # Summed exactly: the same ranks in another order are the same number.
            "ndcg": math.fsum(1 / np.log2(hit + 2)) / max(1, len(ranks)),
            "rank_histogram": (np.bincount(hit, minlength=k) / max(1, len(hit))).tolist(),
        }
    return out

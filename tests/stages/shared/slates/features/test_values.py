"""Features and their bins, against the sums they stand for, one slate at a time."""

import numpy as np
import polars as pl
import pytest

from stages.shared.core.errors import StageError
from stages.shared.core.schemas import ITEMS
from stages.shared.slates.candidate_features import FEATURES
from stages.shared.slates.features import values as candidate_features
from stages.shared.slates.features.statistics import Statistics, count
from tests.support.retrieve_project import K, N, interactions, items


def mixed_items() -> pl.DataFrame:
    """Some with several categories, some with a brand, some with neither."""
    rows = [(i, str(i), "", f"b{i % 4}" if i % 3 else "", [f"c{c}" for c in range(i % 4)], None, "") for i in range(N)]
    return pl.DataFrame(rows, schema=ITEMS, orient="row")


def made_up(slates: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(slates):
        taken = rng.integers(0, N, size=rng.integers(1, 15)).tolist()  # repeats too
        rows.append((taken, rng.permutation(N)[:K].tolist(), np.sort(rng.normal(size=K))[::-1].tolist()))
    schema = {"history": pl.List(pl.Int32), "candidates": pl.List(pl.Int32), "scores": pl.List(pl.Float32)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def features_of(row: dict, statistics: Statistics, last: int) -> list[list[float]]:
    together, follows, category = (part.toarray() for part in (statistics.cooccurrence, statistics.transition, statistics.category))
    recent, steps = row["history"][-last:], row["history"][-candidate_features.RECENT_TRANSITIONS :]
    return [
        [
            np.mean([together[past, item] for past in recent]),
            sum(follows[past, item] for past in steps),
            category[item] @ np.mean([category[past] for past in recent], axis=0),
            statistics.log_count[item],
            statistics.recency[item],
            score - max(row["scores"]),
        ]
        for item, score in zip(row["candidates"], row["scores"], strict=True)
    ]


@pytest.mark.parametrize(("last", "batch"), [(1, 100), (3, 7), (10, 64), (50, 1)])
def test_features_are_the_sums_over_each_slates_history(last, batch):
    statistics = count(interactions().filter(pl.col("split") == "base"), mixed_items())
    slates = made_up(60, seed=last)
    values = candidate_features.collect(slates, K, statistics, last, batch)
    expected = [features_of(row, statistics, last) for row in slates.iter_rows(named=True)]
    assert values.dtype == np.float32 and np.allclose(values, expected, atol=1e-6)
    assert (values[..., :3].reshape(-1, 3).max(axis=0) > 0).all()
    assert (values == candidate_features.collect(slates, K, statistics, last, 13)).all(), "batches must not change a bit"


def test_no_slates_and_no_categories():
    bare = items().with_columns(categories=pl.Series([[]] * N, dtype=pl.List(pl.String)))
    statistics = count(interactions().filter(pl.col("split") == "base"), bare)
    assert candidate_features.collect(made_up(5, 0).clear(), K, statistics, 3).shape == (0, K, len(FEATURES))
    assert not candidate_features.collect(made_up(5, 0), K, statistics, 3)[..., 2].any()


def test_no_training_slate_that_holds_its_target():
    with pytest.raises(StageError, match="no training slate holds its target"):
        candidate_features.bin_edges(np.zeros((0, K, len(FEATURES))), 4)


def test_levels_split_the_training_slates_evenly():
    values = np.random.default_rng(0).normal(size=(200, K, len(FEATURES)))
    bins = candidate_features.to_bins(values, candidate_features.bin_edges(values, 4))
    assert bins.dtype == np.int32 and np.bincount(bins[..., 0].ravel()).tolist() == [250] * 4
    beyond = candidate_features.to_bins(np.array([-1e9, 1e9])[:, None].repeat(len(FEATURES), 1), candidate_features.bin_edges(values, 4))
    assert beyond[0].tolist() == [0] * len(FEATURES) and beyond[1].tolist() == [3] * len(FEATURES)

"""Cuts each user's sequence by position: base, slates, valid, test."""

import polars as pl

from stages.ingest.params import IngestParams

MIN_BASE = 5  # fewer leave the pre-ranker nothing to learn a user's taste from


def order_and_split(pairs: pl.DataFrame, params: IngestParams) -> pl.DataFrame:
    """Columns user, item, timestamp, row -> user, item, position, timestamp, split; sorted by user, then time.

    Interactions at the same second keep the order of the source file (`row`). Within a user of n interactions:
    the last `test_positions` are test, the `valid_positions` before them valid, the first floor(base_share * n) base,
    the rest slates. A user too short for five of base and one of slates is base throughout: a history, but nothing to rank.
    """
    length = pl.len().over("user")
    base = (length * params.base_share).floor().cast(pl.Int64)
    test_from = length.cast(pl.Int64) - params.test_positions
    valid_from = test_from - params.valid_positions
    split = (
        pl.when((base < MIN_BASE) | (base >= valid_from) | (pl.col("position") < base))
        .then(pl.lit("base"))
        .when(pl.col("position") < valid_from)
        .then(pl.lit("slates"))
        .when(pl.col("position") < test_from)
        .then(pl.lit("valid"))
        .otherwise(pl.lit("test"))
    )
    ordered = pairs.sort("user", "timestamp", "row").with_columns(position=pl.int_range(pl.len(), dtype=pl.Int32).over("user"))
    return ordered.with_columns(split=split).select("user", "item", "position", "timestamp", "split")

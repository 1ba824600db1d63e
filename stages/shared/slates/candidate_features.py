"""The features a slate carries about each candidate: named, bucketed, written in a handful of tokens.

Everything that ranks a candidate (the statistical teacher, LambdaMART, the student through its prompt) reads these features
and nothing else, so what a trace cites is always in the prompt.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import polars as pl

from stages.shared.core.schemas import Schema, read_columns, read_table

# Short names, because the prompt spells one for each candidate and feature: "co7" = bin 7 of co-occurrence.
FEATURES: dict[str, str] = {
    "co": "co-occurrence with the last items (mean cosine over users)",
    "tr": "transitions from the last items (distance-discounted, within three steps)",
    "ca": "share of categories and brand with the last items (cosine)",
    "po": "popularity (log count)",
    "re": "recency (share of the item's interactions in the last quarter of the statistics' time)",
    "sc": "retriever score below its first candidate",
}
# Those that `prompt.more_features` may add, after the others and in this order.
MORE_FEATURES: dict[str, str] = {
    "fo": "how much likelier the item's kind is after the kinds of the last two items than in general (log, the last counts double)",
    "br": "brand shared with the last two items (the last counts double)",
}


def features_with(more: Collection[str], less: Collection[str] = ()) -> tuple[str, ...]:
    """The names of all features of a run that adds `more` of MORE_FEATURES, in the order of the prompt; without `less` of FEATURES."""
    return (*(feature for feature in FEATURES if feature not in less), *(feature for feature in MORE_FEATURES if feature in more))


def schema_with(features: Sequence[str]) -> Schema:
    """Of data/retrieve/candidate_features.parquet: one row a candidate."""
    values: Schema = {feature: pl.Float32 for feature in features}
    bins: Schema = {f"{feature}_bin": pl.Int32 for feature in features}
    return {"slate": pl.Int32, "rank": pl.Int32, "item": pl.Int32, **values, **bins}


CANDIDATE_FEATURES = schema_with(tuple(FEATURES))


def features_of(feature_table: pl.DataFrame) -> tuple[str, ...]:
    """The names of the features in a table, in the order of the prompt."""
    return features_with(feature_table.columns)


def read_candidate_features(path: Path) -> pl.DataFrame:
    """The table at `path` with the features it was made with; StageError as of read_table."""
    return read_table(path, schema_with(features_with(read_columns(path))))


def feature_tokens(features: Sequence[str], bins: Sequence[int]) -> list[str]:
    """Names and their bins -> the words of the prompt, e.g. ["co7", "tr0", ...]."""
    return [f"{feature}{number}" for feature, number in zip(features, bins, strict=True)]

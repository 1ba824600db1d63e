"""The features a slate carries about each candidate: named, bucketed, written in a handful of tokens.

Everything that ranks a candidate (the statistical teacher, LambdaMART, the student through its prompt) reads these features
and nothing else, so what a trace cites is always in the prompt.
"""

import polars as pl

from stages.shared.core.schemas import Schema

# Short names, because the prompt spells one for each candidate and feature: "co7" = bin 7 of co-occurrence.
FEATURES: dict[str, str] = {
    "co": "co-occurrence with the last items (mean cosine over users)",
    "tr": "transitions from the last items (distance-discounted, within three steps)",
    "ca": "share of categories and brand with the last items (cosine)",
    "po": "popularity (log count)",
    "re": "recency (share of the item's interactions in the last quarter of the statistics' time)",
    "sc": "retriever score below its first candidate",
}

CANDIDATE_FEATURES: Schema = {
    "slate": pl.Int32,
    "rank": pl.Int32,
    "item": pl.Int32,
    **{feature: pl.Float32 for feature in FEATURES},
    **{f"{feature}_bin": pl.Int32 for feature in FEATURES},
}


def feature_tokens(bins: list[int]) -> list[str]:
    """Bins in the order of FEATURES -> the words of the prompt, e.g. ["co7", "tr0", ...]."""
    return [f"{feature}{number}" for feature, number in zip(FEATURES, bins, strict=True)]

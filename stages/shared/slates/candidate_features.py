"""The facts a slate carries about each candidate: named, bucketed, told in a handful of tokens.

Everything that judges a candidate (the statistical teacher, LambdaMART, the student through its prompt) reads these facts
and nothing else, so what a trace cites always stands in the prompt.
"""

import polars as pl

from stages.shared.core.schemas import Schema

# Short names, because the prompt spells one for each candidate and fact: "co7" = level 7 of co-occurrence.
FACTS: dict[str, str] = {
    "co": "co-occurrence with the last items (mean cosine over users)",
    "tr": "transitions from the last items (distance-discounted, within three steps)",
    "ca": "share of categories and brand with the last items (cosine)",
    "po": "popularity (log count)",
    "re": "recency (share of the item's interactions in the last quarter of the statistics' time)",
    "sc": "retriever score below its first candidate",
}

EVIDENCE: Schema = {
    "slate": pl.Int32,
    "rank": pl.Int32,
    "item": pl.Int32,
    **{fact: pl.Float32 for fact in FACTS},
    **{f"{fact}_level": pl.Int32 for fact in FACTS},
}


def fact_words(levels: list[int]) -> list[str]:
    """Levels in the order of FACTS -> the words of the prompt, e.g. ["co7", "tr0", ...]."""
    return [f"{fact}{level}" for fact, level in zip(FACTS, levels, strict=True)]

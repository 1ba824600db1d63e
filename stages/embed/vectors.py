"""Checks and figures on a table of vectors, one row an item."""

import numpy as np

from stages.shared.core.errors import StageError

SAME = 1e-6  # rounding of float32 batches stays below it


def normalise(vectors: np.ndarray, what: str = "embedding", remedy: str = "try dtype: float32 or another model") -> np.ndarray:
    """Rows scaled to length 1; StageError names the first item whose vector is zero, infinite or not a number."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0))
    if bad.size:
        raise StageError(f"item {bad[0]}: its {what} is zero or not finite ({bad.size} such items); {remedy}")
    unit: np.ndarray = (vectors / lengths).astype(np.float32)
    return unit


def check_not_constant(vectors: np.ndarray, texts: list[str]) -> None:
    """StageError when all items have the same vector: no code could separate them."""
    if len(vectors) < 2 or np.ptp(vectors, axis=0).max() > SAME:
        return
    if len(set(texts)) == 1:
        raise StageError(f"data/ingest/items.parquet: all {len(texts)} items have the same text {texts[0][:60]!r}; give them titles")
    raise StageError(
        f"all {len(vectors)} items have the same embedding though their texts differ; check embed.pooling and embed.max_tokens "
        "(do they leave any token of the text?) and the weights in embed.model"
    )


def mean_cosine(vectors: np.ndarray) -> float:
    """Mean cosine over all pairs of different items: near 1 the texts look alike to the model, and SIDs will collide."""
    n = len(vectors)
    # The squared length of the sum is the sum over all pairs, each vector with itself included: no n x n table.
    total = float(np.square(vectors.sum(axis=0, dtype=np.float64)).sum())
    return round((total - n) / (n * (n - 1)), 6) if n > 1 else 0.0

"""How unlike the targets' incoming ranks are in training and held-out slates, compared with what chance alone would give."""

from typing import Any

import numpy as np
import polars as pl

DRAWS = 1000


def rank_distances(slates: pl.DataFrame, k: int, seed: int) -> dict[str, dict[str, Any]]:
    """For metrics.json. An injected target counts as missed, as it was before."""
    met = pl.when(pl.col("provenance") == "injected").then(-1).otherwise("target_rank").alias("rank")
    ranks = {split: slates.filter(pl.col("split") == split).select(met)["rank"].to_numpy() for split in ("train", "valid", "test")}
    return {f"train_{split}": rank_distance(ranks["train"], ranks[split], k, seed) for split in ("valid", "test")}


def rank_distance(one_N: np.ndarray, other_M: np.ndarray, k: int, seed: int) -> dict[str, Any]:
    """`total_variation` of the rank histograms of the slates that hold their target, and `hit_rate`, the difference of the shares that
    do (one minus other). Ranks from 0, -1 = missed.

    Each with what slates assigned at random to two groups of these sizes would give: mean and 95th percentile of its size, and the share
    of draws at least as large (p, counting the data itself as a draw). Slates of one user count as independent, so p is rather too
    small than too large. None where a group is empty.
    """
    counts = [np.bincount(ranks[ranks >= 0], minlength=k) for ranks in (one_N, other_M)]
    hits = [[int(histogram.sum()), len(ranks) - int(histogram.sum())] for histogram, ranks in zip(counts, (one_N, other_M), strict=True)]
    rng = np.random.default_rng(seed)
    variation = _against_chance(counts[0], counts[1], rng)
    rates = _against_chance(np.array(hits[0]), np.array(hits[1]), rng)
    if rates is not None:  # of two shares the total variation is the size of their difference
        rates = {"difference": hits[0][0] / len(one_N) - hits[1][0] / len(other_M)} | rates
        del rates["value"]
    return {"total_variation": variation, "hit_rate": rates}


def _against_chance(one_K: np.ndarray, other_K: np.ndarray, rng: np.random.Generator) -> dict[str, float] | None:
    """Counts of the same classes in two groups."""
    n, m = int(one_K.sum()), int(other_K.sum())
    if not n or not m:
        return None
    pooled = one_K + other_K
    drawn = rng.multivariate_hypergeometric(pooled, n, size=DRAWS)
    chance = 0.5 * np.abs(drawn / n - (pooled - drawn) / m).sum(axis=1)
    value = 0.5 * float(np.abs(one_K / n - other_K / m).sum())
    return {
        "value": value,
        "chance_mean": float(chance.mean()),
        "chance_p95": float(np.quantile(chance, 0.95)),
        "p": float((1 + (chance >= value - 1e-12).sum()) / (1 + DRAWS)),
    }

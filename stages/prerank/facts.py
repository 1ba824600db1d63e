"""The facts about each candidate of a slate, and the levels they are told in."""

import numpy as np
import polars as pl
from tqdm import tqdm

from stages.prerank.statistics import Statistics
from stages.shared.errors import StageError
from stages.shared.evidence import FACTS

RECENT_TRANSITIONS = 10


def facts_of(history: list[int], candidates: list[int], scores: list[float], statistics: Statistics, last: int) -> np.ndarray:
    """float32 [K, facts] in the order of FACTS. `history` oldest first, `scores` in incoming order."""
    recent = history[-last:]
    steps = history[-RECENT_TRANSITIONS:]
    together = statistics.cooccurrence[recent][:, candidates].toarray().mean(axis=0)
    follows = statistics.transition[steps][:, candidates].toarray().sum(axis=0)
    taste = np.asarray(statistics.category[recent].mean(axis=0)).ravel()
    shared = statistics.category[candidates] @ taste
    gap = np.asarray(scores, dtype=np.float32) - scores[0]
    columns = [together, follows, shared, statistics.log_count[candidates], statistics.recency[candidates], gap]
    return np.stack(columns, axis=1).astype(np.float32)


def collect(slates: pl.DataFrame, statistics: Statistics, last: int) -> np.ndarray:
    """Facts of every slate, float32 [slates, K, facts]."""
    rows = slates.select("history", "candidates", "scores").iter_rows()
    progress = tqdm(rows, total=slates.height, desc="evidence", mininterval=2.0)
    return np.stack([facts_of(history, candidates, scores, statistics, last) for history, candidates, scores in progress])


def level_edges(facts: np.ndarray, levels: int) -> np.ndarray:
    """Edges of `levels` equally filled buckets, [facts, levels - 1], from the facts of *training* slates [n, K, facts]."""
    if len(facts) == 0:
        raise StageError("prerank: no training slate holds its target; the pre-ranker is too weak or the data too small for candidates=K")
    flat = facts.reshape(-1, len(FACTS))
    return np.quantile(flat, np.linspace(0, 1, levels + 1)[1:-1], axis=0).T


def to_levels(facts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Facts [..., facts] -> int32 levels of the same shape, 0 = least."""
    levels = [np.searchsorted(edges[i], facts[..., i], side="right") for i in range(len(FACTS))]
    return np.stack(levels, axis=-1).astype(np.int32)

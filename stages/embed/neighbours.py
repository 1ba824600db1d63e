"""Are an item's nearest neighbours items that the same people take next to it?"""

from typing import Any

import numpy as np
import scipy.sparse as sp

NEIGHBOURS = 10
SAMPLE = 1000
CHUNK = 256  # rows of one block of cosines


def adjacency(sequences: list[list[int]], items: int) -> sp.csr_array:
    """bool [items, items], symmetric: whether two different items were ever neighbours in a sequence."""
    before = np.array([item for sequence in sequences for item in sequence[:-1]], dtype=np.int64)
    after = np.array([item for sequence in sequences for item in sequence[1:]], dtype=np.int64)
    differ = before != after
    a, b = np.concatenate([before, after]), np.concatenate([after, before])
    keep = np.tile(differ, 2)
    return sp.csr_array((np.ones(keep.sum(), dtype=bool), (a[keep], b[keep])), shape=(items, items))


def sample(adjacent: sp.csr_array, seed: int) -> np.ndarray:
    """Up to SAMPLE items that were ever next to another, in order."""
    candidates = np.flatnonzero(np.diff(adjacent.indptr))
    chosen = np.random.default_rng(seed).permutation(candidates)[:SAMPLE]
    return np.sort(chosen)


def neighbour_shares(unit_ND: np.ndarray, adjacent: sp.csr_array, rows: np.ndarray) -> np.ndarray:
    """For each of `rows`: of the NEIGHBOURS items nearest to it by cosine, the share that is adjacent to it."""
    k = min(NEIGHBOURS, len(unit_ND) - 1)
    shares = []
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        cosines = unit_ND[part] @ unit_ND.T
        # No item is its own neighbour.
        cosines[np.arange(len(part)), part] = -np.inf
        nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        shares.append(np.take_along_axis(adjacent[part].toarray(), nearest, axis=1).mean(axis=1))
    return np.concatenate(shares)


def compare(text: np.ndarray, result: np.ndarray, sequences: list[list[int]], seed: int) -> dict[str, Any]:
    """Mean shares of both tables against `sequences`; only the number of items if no two items were ever neighbours.

    `chance`: what neighbours drawn at random would have; `popular`: what the items with the most neighbours would have as everyone's.
    `diff_ci`: 95 % of result - text, normal approximation over items.
    """
    adjacent = adjacency(sequences, len(text))
    rows = sample(adjacent, seed)
    if len(rows) < 2:
        return {"items": len(rows)}
    before, after = neighbour_shares(text, adjacent, rows), neighbour_shares(result, adjacent, rows)
    diff = after - before
    degrees = np.diff(adjacent.indptr)
    # A trivial rival: popular items are next to many others, so a table that only knows popularity scores well, too.
    popular = np.argsort(-degrees, kind="stable")[:NEIGHBOURS]
    half = 1.96 * float(diff.std(ddof=1)) / len(rows) ** 0.5
    return {
        "items": len(rows),
        "chance": float(degrees[rows].mean() / (len(text) - 1)),
        "popular": float(adjacent[rows][:, popular].toarray().mean()),
        "text": float(before.mean()),
        "result": float(after.mean()),
        "diff": float(diff.mean()),
        "diff_ci": [float(diff.mean()) - half, float(diff.mean()) + half],
    }

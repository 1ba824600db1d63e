"""What the codes are worth, in numbers: uniqueness, use of the codebooks, error, meaning of the prefixes, who collides."""

from typing import Any

import numpy as np
import polars as pl
import scipy.sparse
import scipy.stats

from stages.tokenize.assignment.prefix_groups import prefix_numbers
from stages.tokenize.quantizers.codebook import CHUNK
from stages.tokenize.quantizers.quantizer import Quantizer

NEIGHBOURS = 10
QUERIES = 1_000  # items whose neighbours are looked at
CELLS = 2**24  # cosines held at once


def colliding(codes_NL: np.ndarray) -> np.ndarray:
    """Which items share their SID with another, bool [N]."""
    return _shared(prefix_numbers(codes_NL))


def uniqueness(codes_NL: np.ndarray) -> float:
    """Share of items whose SID nobody else has."""
    return float(1 - colliding(codes_NL).mean())


def collisions(codes_NL: np.ndarray) -> list[list[int]]:
    """Items behind one SID, for every SID that more than one item has, ordered by first item."""
    groups = prefix_numbers(codes_NL)
    items_by_sid: dict[int, list[int]] = {}
    for item in np.flatnonzero(_shared(groups)).tolist():
        items_by_sid.setdefault(int(groups[item]), []).append(item)
    return list(items_by_sid.values())


def _shared(groups_N: np.ndarray) -> np.ndarray:
    shared: np.ndarray = np.bincount(groups_N)[groups_N] > 1
    return shared


def usage_counts(codes_NL: np.ndarray, codebook_size: int) -> np.ndarray:
    """How many items have each code, [L, C]."""
    return np.stack([np.bincount(codes, minlength=codebook_size) for codes in codes_NL.T])


def entropy(counts_C: np.ndarray) -> float:
    """Of the codes of one level, in bits: at most log2(C)."""
    share = counts_C[counts_C > 0] / counts_C.sum()
    return float(-(share * np.log2(share)).sum())


def perplexity(counts_C: np.ndarray) -> float:
    """2^entropy: as many codes, equally used, would carry as much."""
    return float(2 ** entropy(counts_C))


def codebook_use(codes_NL: np.ndarray, codebook_size: int) -> dict[str, list[float]]:
    """By level: share of codes in use, perplexity, entropy (bits)."""
    counts_LC = usage_counts(codes_NL, codebook_size)
    return {
        "usage": [round(float((counts > 0).mean()), 6) for counts in counts_LC],
        "perplexity": [round(perplexity(counts), 4) for counts in counts_LC],
        "entropy_bits": [round(entropy(counts), 4) for counts in counts_LC],
    }


def error_by_level(quantizer: Quantizer, embeddings_NE: np.ndarray, codes_NL: np.ndarray) -> list[float]:
    """Reconstruction error of the first 1, 2, ... L codes."""
    return [round(float(quantizer.errors(embeddings_NE, codes_NL[:, : level + 1]).mean()), 9) for level in range(codes_NL.shape[1])]


def variance(embeddings_NE: np.ndarray) -> float:
    """Mean over dimensions of the variance over items, in double precision and without a copy of the catalogue."""
    total_E, squares_E = np.zeros(embeddings_NE.shape[1]), np.zeros(embeddings_NE.shape[1])
    shift_E = embeddings_NE[0].astype(np.float64)  # near the mean: sums of squares do not swallow the spread
    for start in range(0, len(embeddings_NE), CHUNK):
        part = embeddings_NE[start : start + CHUNK] - shift_E
        total_E += part.sum(axis=0)
        squares_E += np.square(part).sum(axis=0)
    return float((squares_E / len(embeddings_NE) - np.square(total_E / len(embeddings_NE))).mean())


def prefix_purity(codes_NL: np.ndarray, labels_N: np.ndarray, seed: int) -> dict[str, list[float]]:
    """For prefixes of 1, 2, ... L - 1 codes: the share of items whose label is the commonest under their prefix, and the same with
    the labels shuffled.

    Small groups are pure by chance (a group of one always is), so the first number says nothing without the second. `labels_N`:
    integers; -1 = no label, left out. Without any label all shares are 0.
    """
    having = labels_N >= 0
    if not having.any():
        nothing = [0.0] * (codes_NL.shape[1] - 1)
        return {"purity": nothing, "shuffled": nothing}
    codes_NL, labels = codes_NL[having], labels_N[having]
    shuffled = np.random.default_rng(seed).permutation(labels)
    result: dict[str, list[float]] = {"purity": [], "shuffled": []}
    for level in range(1, codes_NL.shape[1]):
        groups = prefix_numbers(codes_NL[:, :level])
        for name, given in (("purity", labels), ("shuffled", shuffled)):
            table = scipy.sparse.coo_matrix((np.ones(len(groups), dtype=np.int64), (groups, given))).tocsr()
            result[name].append(round(float(table.max(axis=1).toarray().sum() / len(groups)), 6))
    return result


def category_labels(categories: pl.Series) -> np.ndarray:
    """One integer per item for its whole list of categories, so the leaf of a path with all above it; -1 where it has none."""
    joined = categories.list.join(" > ")
    numbers = joined.rank("dense").cast(pl.Int64).to_numpy() - 1
    return np.where((joined == "").to_numpy(), -1, numbers)


def neighbour_overlap(embeddings_NE: np.ndarray, codes_NL: np.ndarray, seed: int) -> dict[str, Any]:
    """Do items that are near in embedding share prefixes? By prefix length: the share of (item, one of its 10 nearest by cosine)
    pairs that do, and the same for pairs drawn at random. Over at most 1,000 items, drawn with `seed`."""
    count = len(embeddings_NE)
    generator = np.random.default_rng(seed)
    queries = np.sort(generator.choice(count, min(QUERIES, count), replace=False))
    neighbours = min(NEIGHBOURS, count - 1)
    near: list[np.ndarray] = []
    lengths_N = np.sqrt(np.einsum("nd,nd->n", embeddings_NE, embeddings_NE))
    chunk = max(1, CELLS // count)
    for start in range(0, len(queries), chunk):
        part = queries[start : start + chunk]
        distance = embeddings_NE[part] @ embeddings_NE.T
        # Only the other item's length: the query's is the same for its whole row, so the order is that of cosines.
        distance /= -lengths_N
        distance[np.arange(len(part)), part] = np.inf
        near.append(np.argpartition(distance, neighbours - 1, axis=1)[:, :neighbours].copy())  # a view would keep all of it
    neighbours_QM = np.concatenate(near)
    random = generator.integers(0, count, size=neighbours_QM.shape)
    shares = {}
    for name, others in (("near", neighbours_QM), ("random", random)):
        # The running product over levels is 1 as long as all codes so far agree: prefixes of 1, 2, ... codes.
        same_QNL = codes_NL[others] == codes_NL[queries][:, None, :]
        shares[name] = [round(float(share), 6) for share in same_QNL.cumprod(axis=2).mean(axis=(0, 1))[:-1]]
    return {"items": len(queries), "neighbours": neighbours, **shares}


def collision_popularity(codes_NL: np.ndarray, taken_N: np.ndarray) -> dict[str, Any]:
    """Are the items that collide (before assignment) more or less popular than the others?

    `auc`: chance that a colliding item was taken more often than one that does not collide (ties count half; 0.5 = no bias), with
    the p-value of Mann-Whitney's test; and the mean counts. Null where no item, or every item, collides.
    """
    shared = colliding(codes_NL)
    if not shared.any() or shared.all():
        return {"colliding_items": int(shared.sum()), "auc": None, "p_value": None, "mean_taken_colliding": None, "mean_taken_others": None}
    test = scipy.stats.mannwhitneyu(taken_N[shared], taken_N[~shared])
    return {
        "colliding_items": int(shared.sum()),
        "auc": round(float(test.statistic / (shared.sum() * (~shared).sum())), 6),
        "p_value": round(float(test.pvalue), 6),
        "mean_taken_colliding": round(float(taken_N[shared].mean()), 4),
        "mean_taken_others": round(float(taken_N[~shared].mean()), 4),
    }

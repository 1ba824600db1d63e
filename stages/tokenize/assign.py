"""From nearest codes to identifiers: the last level drawn at random, and the counts that say how well that worked."""

import numpy as np

from stages.shared.errors import StageError


def random_last(codes_NL: np.ndarray, codebook_size: int, seed: int) -> np.ndarray:
    """Codes whose last level is drawn uniformly, without repetition, among all items that share the levels before it.

    As in GR2 (arXiv 2602.07774) every item is drawn for, also one that is alone under its prefix: the last level then means
    the same everywhere, a number that tells siblings apart, never likeness. Raises StageError for a prefix with more items than codes.
    """
    assigned_NL = codes_NL.copy()
    generator = np.random.default_rng(seed)
    for prefix, items in prefix_groups(codes_NL).items():
        if len(items) > codebook_size:
            raise StageError(
                f"{len(items)} items share the first {len(prefix)} codes {list(prefix)} but the last level has {codebook_size} codes; "
                f"raise tokenize.codebook_size or tokenize.levels (or look at usage: the codebooks may have collapsed)"
            )
        assigned_NL[items, -1] = generator.permutation(codebook_size)[: len(items)]
    return assigned_NL


def prefix_groups(codes_NL: np.ndarray) -> dict[tuple[int, ...], list[int]]:
    """Items by all their codes but the last; prefixes in order, items in order."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for item, prefix in enumerate(map(tuple, codes_NL[:, :-1].tolist())):
        groups.setdefault(prefix, []).append(item)
    return dict(sorted(groups.items()))


def uniqueness(codes_NL: np.ndarray) -> float:
    """Share of items whose SID nobody else has."""
    _, inverse, counts = np.unique(codes_NL, axis=0, return_inverse=True, return_counts=True)
    return float((counts[inverse.ravel()] == 1).mean())


def collisions(codes_NL: np.ndarray) -> list[list[int]]:
    """Items behind one SID, for every SID that stands for more than one."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for item, codes in enumerate(map(tuple, codes_NL.tolist())):
        groups.setdefault(codes, []).append(item)
    return [items for items in groups.values() if len(items) > 1]


def usage_counts(codes_NL: np.ndarray, codebook_size: int) -> np.ndarray:
    """How many items have each code, [L, C]."""
    return np.stack([np.bincount(codes, minlength=codebook_size) for codes in codes_NL.T])


def perplexity(counts_C: np.ndarray) -> float:
    """exp(entropy) of one level: as many codes, equally used, would carry as much."""
    share = counts_C[counts_C > 0] / counts_C.sum()
    return float(np.exp(-(share * np.log(share)).sum()))

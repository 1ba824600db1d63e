"""From nearest codes to identifiers: how the last level separates items that share all levels before it."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from stages.shared.core.errors import StageError
from stages.tokenize.assignment.prefix_groups import prefix_groups, prefix_numbers

# Last codes that are given away already, by prefix: what append mode must not give again.
Taken = dict[tuple[int, ...], np.ndarray]


def random_last(codes_NL: np.ndarray, codebook_size: int, seed: int, taken: Taken | None = None) -> np.ndarray:
    """Codes whose last level is drawn uniformly, without repetition, among all items that share the levels before it.

    As in GR2 (arXiv 2602.07774) a code is drawn for every item, also for one that is alone under its prefix: the last level then means
    the same everywhere, a number that separates siblings and says nothing about similarity. No prefix may have more items than free codes
    (resolve_overflow.py sees to it).
    """
    assigned_NL = codes_NL.copy()
    generator = np.random.default_rng(seed)
    for prefix, items in prefix_groups(codes_NL):
        # The whole codebook is permuted, not only its free codes: what is taken under one prefix does not shift the draws of the next.
        drawn = generator.permutation(codebook_size)
        if taken and prefix in taken:
            drawn = drawn[~np.isin(drawn, taken[prefix])]
        assigned_NL[items, -1] = drawn[: _fitting(prefix, items, len(drawn))]
    return assigned_NL


def optimal_last(codes_NL: np.ndarray, latents_ND: np.ndarray, codebooks_LCD: np.ndarray, taken: Taken | None = None) -> np.ndarray:
    """Codes whose last level costs the least squared error that distinct codes within every prefix can.

    Within a prefix it is a minimum-cost assignment of items to codes, cost[i, c] = ||residual_i - code_c||^2 with what the prefix
    leaves of the latent as residual, solved exactly (Jonker-Volgenant, Crouse 2016, in SciPy). `codes_NL`: the last level holds
    the code nearest to that residual. Where those of a prefix differ already they are the optimum, so only prefixes with a
    collision are solved.
    """
    assigned_NL = codes_NL.copy()
    for prefix, items in prefix_groups(codes_NL, only=_unsettled(codes_NL, taken)):
        free = np.arange(codebooks_LCD.shape[1])
        if taken and prefix in taken:
            free = np.setdiff1d(free, taken[prefix])
        _fitting(prefix, items, len(free))
        residuals_GD = latents_ND[items] - sum(codebooks_LCD[level, code] for level, code in enumerate(prefix))
        rows, columns = linear_sum_assignment(squared_distances(residuals_GD, codebooks_LCD[-1, free]))
        assigned_NL[items[rows], -1] = free[columns]
    return assigned_NL


def squared_distances(vectors_BD: np.ndarray, codebook_CD: np.ndarray) -> np.ndarray:
    """||v - c||^2 for every pair, [B, C], in double precision: near-equal costs decide assignments."""
    vectors_BD, codebook_CD = vectors_BD.astype(np.float64), codebook_CD.astype(np.float64)
    norms = np.square(vectors_BD).sum(axis=1)[:, None] + np.square(codebook_CD).sum(axis=1)
    return np.maximum(norms - 2 * vectors_BD @ codebook_CD.T, 0)


def _unsettled(codes_NL: np.ndarray, taken: Taken | None) -> np.ndarray:
    """Items under a prefix where two items have the same last code, or one that is taken."""
    whole, prefix = prefix_numbers(codes_NL), prefix_numbers(codes_NL[:, :-1])
    clash = np.bincount(whole)[whole] > 1
    if taken:
        clash |= np.array([row[-1] in taken.get(tuple(row[:-1]), ()) for row in codes_NL.tolist()], dtype=bool)
    return np.flatnonzero(np.isin(prefix, prefix[clash]))


def _fitting(prefix: tuple[int, ...], items: np.ndarray, free: int) -> int:
    if len(items) > free:
        raise StageError(
            f"{len(items)} items share the codes {list(prefix)} and {free} last codes are free; resolve_overflow must run first"
        )
    return len(items)

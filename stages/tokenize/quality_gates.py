"""The gates: numbers below which the stage fails rather than hand on identifiers that mean little."""

import numpy as np

from stages.shared.core.errors import StageError
from stages.tokenize.measure import codebook_use, collisions, uniqueness
from stages.tokenize.params import TokenizeParams


def check(nearest_NL: np.ndarray, assigned_NL: np.ndarray, params: TokenizeParams) -> None:
    """StageError that names every gate that is missed, with the numbers."""
    missed = [*_use(nearest_NL, params), *_uniqueness(assigned_NL, params)]
    if missed:
        raise StageError("\n".join(missed))


def _use(nearest_NL: np.ndarray, params: TokenizeParams) -> list[str]:
    use = codebook_use(nearest_NL, params.codebook_size)
    share = [value / params.codebook_size for value in use["perplexity"]]
    lines = []
    # A catalogue smaller than a codebook cannot use all of it.
    most = min(1.0, len(nearest_NL) / params.codebook_size)
    if min(use["usage"]) < params.usage_gate * most:
        lines.append(
            f"codes in use by level {use['usage']}, below tokenize.usage_gate {params.usage_gate}: the codebooks collapsed; "
            f"use codebook_start: kmeans and ema, a longer warm-up, or a smaller codebook_size"
        )
    if min(share) < params.perplexity_gate * most:
        lines.append(
            f"perplexity by level {use['perplexity']} of {params.codebook_size} codes, below tokenize.perplexity_gate "
            f"{params.perplexity_gate}; set diversity_weight, or a smaller codebook_size"
        )
    return lines


def _uniqueness(assigned_NL: np.ndarray, params: TokenizeParams) -> list[str]:
    share = uniqueness(assigned_NL)
    if share >= params.uniqueness_gate:
        return []
    shared = collisions(assigned_NL)
    return [
        f"uniqueness {share:.4f} is below tokenize.uniqueness_gate {params.uniqueness_gate}: {sum(map(len, shared))} of "
        f"{len(assigned_NL)} items share {len(shared)} SIDs (first: items {shared[0][:5]}); "
        f"use assignment: optimal_last or random_last, or raise codebook_size or levels"
    ]

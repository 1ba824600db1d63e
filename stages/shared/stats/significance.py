"""Tests of no difference between two rankers on the same slates, and the correction for having made many of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from stages.shared.core.errors import StageError
from stages.shared.stats.bootstrap import INCOMING, Bootstrap, RankerResults, values_of
from stages.shared.stats.metrics import NAMES

Floats = NDArray[np.float64]

# Holm multiplies the smallest p-value by the number of tests, and B flips give none below 1 / (B + 1): 400 flips a test
# leave room down to 1/20 of 0.05.
FLIPS_PER_TEST = 400
_CHUNK = 4_000_000  # signs held at once: 32 MB


def mcnemar(first: NDArray[np.generic], second: NDArray[np.generic]) -> dict[str, float]:
    """first, second [n]: hit or miss of two rankers on the same slates -> slates that only one of them hits, and the two-sided p-value.

    The exact test (McNemar 1947; binomial form as in Fagerland, Lydersen and Laake 2013): of the slates that one alone hits, each
    ranker has half by chance. It takes slates as independent; `sign_flip_test` of the difference does not.
    """
    hits, other_hits = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((hits & ~other_hits).sum()), int((other_hits & ~hits).sum())
    discordant = only_first + only_second
    p = scipy.stats.binomtest(only_first, discordant, 0.5).pvalue if discordant else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": float(p)}


def sign_flip_test(diff: Floats, cluster: NDArray[np.generic], flips: int, seed: int) -> float:
    """Two-sided p-value of a mean of zero of diff [n], a ranker's metric minus another's, in clusters [n]; see sign_flip_tests."""
    return float(sign_flip_tests(np.asarray(diff, dtype=np.float64)[:, None], cluster, flips, seed)[0])


def sign_flip_tests(diffs: Floats, cluster: NDArray[np.generic], flips: int, seed: int) -> Floats:
    """Paired permutation test over users for the m columns of diffs [n, m], all on the same flips -> [m].

    If two rankers do not differ, their names may be exchanged for any user, all slates of that user at once, which turns the sign of
    the user's sum (Fisher 1935; for retrieval Smucker, Allan and Carterette 2007). With few users every pattern of signs is
    enumerated and the p-value is exact; else `flips` patterns are drawn and p = (1 + as extreme) / (1 + flips), which is valid
    for any number of flips (Phipson and Smyth 2010).
    """
    if len(diffs) == 0:
        raise StageError("no slates to test; the test split holds no slate with its target")
    _, index = np.unique(cluster, return_inverse=True)
    sums = np.stack([np.bincount(index, weights=column) for column in diffs.T], axis=1)  # [clusters, m]
    sums = sums[(sums != 0).any(axis=1)]  # a user without a difference has no sign to flip
    count = len(sums)
    # Patterns that tie with the observed one must count, whatever the order in which they were added up.
    bar = np.abs(sums.sum(axis=0)) - 1e-9 * np.abs(sums).sum(axis=0)
    exact = count < 30 and 2**count <= flips
    total = 2**count if exact else flips
    rng = np.random.default_rng(seed)
    extreme = np.zeros(diffs.shape[1], dtype=np.int64)
    for start in range(0, total, step := max(1, _CHUNK // max(1, count))):
        size = min(step, total - start)
        if exact:
            bits = np.arange(start, start + size)[:, None] >> np.arange(count) & 1
        else:
            bits = rng.integers(0, 2, (size, count), dtype=np.int8)
        extreme += (np.abs((2.0 * bits - 1) @ sums) >= bar).sum(axis=0)
    p: Floats = extreme / total if exact else (1 + extreme) / (1 + total)
    return p


def holm(p: Floats) -> Floats:
    """p-values [m] -> adjusted [m]: reject where it is below alpha, and the chance of one false rejection among all m is at most alpha.

    The step-down procedure of Holm (1979); no assumption about how the tests depend on each other.
    """
    p = np.asarray(p, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise StageError(f"{p[~((p >= 0) & (p <= 1))][0]} is not a p-value; the differences it comes from need a look")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def significance(
    models: Mapping[str, RankerResults],
    bootstrap: Bootstrap,
    pairs: Sequence[tuple[str, str]],
    metrics: Sequence[str] = NAMES,
) -> dict[str, Any]:
    """The table of p-values: every pair (a, b) by every metric, Holm's correction over all of it.

    models as for bootstrap.summarise; bootstrap: as many flips as it draws resamples, with its seed, but at least FLIPS_PER_TEST a cell.
    -> {"tests", "flips", "seed", "pairs": {"a-b": {metric: {"p", "p_holm"}, "mcnemar": {"only_first", "only_second", "p", "p_holm"}}}};
    McNemar's tests, of R@1, are corrected apart from the others.
    """
    pairs = list(dict.fromkeys(pairs))
    for name in {INCOMING, *(name for pair in pairs for name in pair)} - set(models):
        raise StageError(f"no results of '{name}' to compare with (measured: {', '.join(models)})")
    values = values_of(models)
    cells = [(a, b, metric) for a, b in pairs for metric in metrics]
    flips = max(bootstrap.resamples, FLIPS_PER_TEST * len(cells))
    diffs = np.stack([values[a][metric] - values[b][metric] for a, b, metric in cells], axis=1)
    p = sign_flip_tests(diffs, bootstrap.users, flips, bootstrap.seed)
    counts = {(a, b): mcnemar(values[a]["recall@1"], values[b]["recall@1"]) for a, b in pairs}
    adjusted = holm(np.array([count["p"] for count in counts.values()]))
    table: dict[str, Any] = {f"{a}-{b}": {"mcnemar": counts[a, b] | {"p_holm": float(adjusted[i])}} for i, (a, b) in enumerate(pairs)}
    for (a, b, metric), p_value, corrected in zip(cells, p.tolist(), holm(p).tolist(), strict=True):
        table[f"{a}-{b}"][metric] = {"p": p_value, "p_holm": corrected}
    return {"tests": len(cells), "flips": flips, "seed": bootstrap.seed, "pairs": table}

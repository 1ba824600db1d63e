"""More than one answer a slate: training runs of several seeds, and repeats of one model at a temperature above zero."""

from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from stages.shared.core.errors import StageError
from stages.shared.stats.bootstrap import LEVEL, Bootstrap, paired_intervals

Floats = NDArray[np.float64]


def over_seeds(values_SN: Floats, bootstrap: Bootstrap) -> dict[str, Any]:
    """values_SN: a metric, or its difference from another ranker, of S runs on the same n slates.

    -> {"seeds", "mean", "sd" (of the runs' means), "each": the runs' means, "ci": 95 % interval that covers users and seeds both}.

    The standard error comes from a two-way bootstrap, which draws users and runs independently of each other (Owen 2007, the pigeonhole
    bootstrap), one fewer than there are of each, which makes the variance unbiased (Rao and Wu 1988). The interval is mean +- t times it,
    with the degrees of freedom of Satterthwaite (1946): with three runs it is percentiles that would be far too narrow.
    """
    values_SN = np.asarray(values_SN, dtype=np.float64)
    labels, index = np.unique(bootstrap.users, return_inverse=True)
    if values_SN.ndim != 2 or values_SN.shape[1] != len(index):
        raise StageError(f"values of shape {values_SN.shape} for {len(index)} slates; measure every run on the same slates")
    runs, users = len(values_SN), len(labels)
    # A single run says nothing of the spread over seeds, a single user nothing of that over users.
    if min(runs, users) < 2:
        raise StageError(f"{runs} run(s) on slates of {users} user(s): a spread needs two of each; train with another seed")
    sizes = np.bincount(index).astype(np.float64)
    sums_SU = np.stack([np.bincount(index, weights=values_N) for values_N in values_SN])
    rng = np.random.default_rng(bootstrap.seed)
    times_BU = rng.multinomial(users - 1, np.full(users, 1 / users), size=bootstrap.resamples)
    times_BS = rng.multinomial(runs - 1, np.full(runs, 1 / runs), size=bootstrap.resamples) / (runs - 1)
    drawn_BS = (times_BU @ sums_SU.T) / (times_BU @ sizes)[:, None]
    spread = float((times_BS * drawn_BS).sum(axis=1).std(ddof=1))
    each = values_SN.mean(axis=1)
    mean, sd = float(each.mean()), float(each.std(ddof=1))
    of_users, of_runs = float(drawn_BS.mean(axis=1).var(ddof=1)), sd**2 / runs
    reach = 0.0
    if spread > 0:
        freedom = (of_users + of_runs) ** 2 / (of_users**2 / (users - 1) + of_runs**2 / (runs - 1))
        reach = float(scipy.stats.t.ppf((1 + LEVEL) / 2, freedom)) * spread
    return {"seeds": runs, "mean": mean, "sd": sd, "each": each.tolist(), "ci": [mean - reach, mean + reach]}


def best_mean_worst_of_n(values_RN: Floats, baseline: Floats, bootstrap: Bootstrap) -> dict[str, Any]:
    """values_RN: a metric, of which more is better, of R answers to each of n slates; baseline [n]: of what they are compared with.

    -> {"repeats", "pessimistic", "mean", "optimistic": {"mean", "diff", "diff_ci"}}: the worst, the average and the best answer of each
    slate. The best of R is what a judge who knew the target could pick, so it grows with R; compare those of the same R only.
    """
    values_RN, baseline = np.asarray(values_RN, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if values_RN.ndim != 2 or values_RN.shape[1] != len(bootstrap.users) or len(baseline) != len(bootstrap.users):
        raise StageError(f"values of shape {values_RN.shape} for {len(bootstrap.users)} slates; repeat every slate equally often")
    by_kind = {"pessimistic": values_RN.min(axis=0), "mean": values_RN.mean(axis=0), "optimistic": values_RN.max(axis=0)}
    diffs = np.stack([values_N - baseline for values_N in by_kind.values()], axis=1)
    intervals = paired_intervals(diffs, bootstrap).tolist()
    rows = zip(by_kind.items(), diffs.mean(axis=0).tolist(), intervals, strict=True)
    return {"repeats": len(values_RN)} | {
        kind: {"mean": float(values_N.mean()), "diff": diff, "diff_ci": interval} for (kind, values_N), diff, interval in rows
    }

"""Upper confidence bound of a rate that is counted on slates, several of each user."""

import numpy as np
import scipy.stats
from numpy.typing import NDArray


def upper_bound(events: NDArray[np.bool_], users: NDArray[np.generic], delta: float) -> float:
    """A value that the true rate exceeds with a chance of at most `delta`. events [n]: on which slates it happened; users [n].

    Korn and Graubard (1998), Survey Methodology 24, 193: the exact bound of Clopper and Pearson, with the number of independent slates
    that would give the spread seen between users in place of n. Never more than n; with no spread to go by (none, or all) the number of
    users, the least that the slates can be worth.
    """
    values = np.asarray(events, dtype=np.float64)
    labels, index = np.unique(users, return_inverse=True)
    slates, clusters = len(values), len(labels)
    rate = float(values.mean())
    effective = float(min(slates, clusters))
    if 0 < rate < 1 and clusters > 1:
        # Linearised variance of a ratio: totals of users around their expectation.
        residuals = np.bincount(index, weights=values - rate)
        variance = clusters / (clusters - 1) * float(np.sum(residuals**2)) / slates**2
        if variance > 0:
            t = scipy.stats.t.ppf(1 - delta, [slates - 1, clusters - 1])
            effective = min(float(slates), rate * (1 - rate) / variance * float(t[0] / t[1]) ** 2)
    count = rate * effective
    return 1.0 if rate >= 1 else float(scipy.stats.beta.ppf(1 - delta, count + 1, effective - count))

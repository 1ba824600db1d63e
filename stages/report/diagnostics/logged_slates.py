"""Slates that were logged in the order in which users saw them: what that order owes to its places."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.stats.bootstrap import INCOMING, Bootstrap, expanded_tail

AT = 5
SOURCES = {
    "logged": "logged with the slates",
    "power": "assumed to fall with the place",
    "randomised": "estimated from the training slates as if their order had been drawn at random",
}


def inverse_propensity(
    rankings: Mapping[str, Rankings],
    targets: NDArray[np.int_],
    grades: NDArray[np.int_] | None,
    propensities: NDArray[np.float64],
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """What was taken, weighted by 1 / the chance that it was looked at where it stood (Joachims et al. 2017, arXiv 1608.04468).

    Of each ranker the mean over taken candidates of 1 / log2(new rank + 1) within the first AT, 0 behind them; each counts with its gain /
    propensity, and the sum of these weights is what is divided by (self-normalised, Swaminathan and Joachims 2015). With one taken a slate
    and equal propensities it is NDCG@AT. Intervals: paired bootstrap over users, the ratio anew in each resample.

    grades, propensities [n, K] by initial rank; targets [n], where there are no grades. -> {"taken", "effective", "heaviest", "models"}.
    """
    size = propensities.shape[1]
    gains = 2.0**grades - 1 if grades is not None else (np.arange(size) == targets[:, None]).astype(np.float64)
    weights = gains / propensities
    labels, index = np.unique(bootstrap.users, return_inverse=True)
    total = np.bincount(index, weights=weights.sum(axis=1))
    earned = {name: np.bincount(index, weights=(weights * _discounts(ranking.orders)).sum(axis=1)) for name, ranking in rankings.items()}
    even, rng = np.full(len(labels), 1 / len(labels)), np.random.default_rng(bootstrap.seed)
    times = rng.multinomial(len(labels), even, size=bootstrap.resamples).astype(np.float64)
    tail = expanded_tail(len(labels))
    models: dict[str, Any] = {}
    for name, own in earned.items():
        gap = own - earned[INCOMING]
        models[name] = {
            "mean": float(own.sum() / total.sum()),
            "diff": float(gap.sum() / total.sum()),
            "diff_ci": np.quantile((times @ gap) / (times @ total), [tail, 1 - tail]).tolist(),
        }
    taken = weights[weights > 0]
    return {
        "taken": len(taken),
        "effective": float(taken.sum() ** 2 / (taken**2).sum()),
        "heaviest": float(taken.max() / taken.sum()),
        "models": models,
    }


def _discounts(orders: NDArray[np.int_]) -> NDArray[np.float64]:
    """[n, K] by initial rank: the discount of the new rank."""
    new_rank = np.argsort(orders, axis=1)
    return np.where(new_rank < AT, 1 / np.log2(new_rank + 2.0), 0.0)


def logged_notes(summary: Mapping[str, Any], given: Mapping[str, Any] | None) -> list[str]:
    """given: of data/retrieve/metrics.json; None where the retriever made the slates."""
    if not given:
        return []
    notes = []
    if given["several_taken"]:
        notes.append(
            f"From {given['several_taken']:.1%} of the slates more than one was taken. Metrics are of all of them, by grade; figures by "
            "initial rank, and the tools that compare runs, are of the first one taken."
        )
    if given["order"] == "shown":
        first = given["places"][0]
        notes.append(
            "The slates were logged in the order in which users saw them, and what stands high is taken more often because it is seen "
            f"more often: at place 1 {first['share']:.0%} were taken. So the initial ranking may look better here than it is "
            "(data/retrieve/model/card.md)."
        )
    else:
        notes.append("The log lists the candidates in another order than users saw; the initial ranking is that list, and says nothing.")
    if weighted := summary.get("inverse_propensity"):
        initial = weighted["models"][INCOMING]["mean"]
        models = ", ".join(
            f"{name} {entry['mean']:.3f} ({entry['diff']:+.3f} [{entry['diff_ci'][0]:+.3f}, {entry['diff_ci'][1]:+.3f}])"
            for name, entry in weighted["models"].items()
            if name not in (INCOMING, "oracle")
        )
        notes.append(
            f"Weighted by inverse propensities ({SOURCES[given['propensities']]}), the discounted rank of what was taken is {initial:.3f} "
            f"as it came; of the others, with the difference and its 95 % interval: {models}. {weighted['taken']:,} taken candidates weigh "
            f"like {weighted['effective']:,.0f} of equal weight."
        )
    return notes

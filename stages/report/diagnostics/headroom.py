"""Headroom, known in the synthetic world only: the gain of the Bayes-optimal order over the initial ranking, and what share an order takes.

The key `achievable` of metrics.json keeps its name, for readers of earlier runs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.stats.bootstrap import LEVEL, Bootstrap
from stages.shared.stats.metrics import slate_metrics
from stages.shared.synthetic.world import expected, share_of_headroom


def headroom(rankings: Mapping[str, Rankings], chances_NK: NDArray[np.float64], bootstrap: Bootstrap) -> dict[str, dict[str, Any]]:
    """Expected NDCG@5 of every order, free of the luck of the draw, and the share it takes of the headroom: of the gain from the initial
    ranking to the Bayes-optimal order. With its 95 % interval (the ratio anew in every resample of users).

    The share is None where nothing can be gained.
    """
    gains = slate_metrics(np.arange(chances_NK.shape[1]))["ndcg@5"]
    values = {name: expected(gains, ranking.orders, chances_NK) for name, ranking in rankings.items()}
    labels, index = np.unique(bootstrap.users, return_inverse=True)
    equal_chances = np.full(len(labels), 1 / len(labels))
    # The ratio is computed anew in each resample: the interval of a ratio is not the ratio of two intervals.
    times_BU = np.random.default_rng(bootstrap.seed).multinomial(len(labels), equal_chances, size=bootstrap.resamples)
    sums = {name: times_BU @ np.bincount(index, weights=metric_N - values["incoming"]) for name, metric_N in values.items()}
    shares: dict[str, dict[str, Any]] = {}
    for name, metric_N in values.items():
        share = share_of_headroom(metric_N, values["incoming"], values["oracle"])
        shares[name] = {"ndcg@5": float(metric_N.mean()), "share": share}
        # A resample in which the oracle gains nothing has no ratio.
        if share is not None and (sums["oracle"] > 0).all():
            shares[name]["share_ci"] = np.quantile(sums[name] / sums["oracle"], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return shares


def world_notes(summary: Mapping[str, Any]) -> list[str]:
    shares = {name: entry for name, entry in summary.get("achievable", {}).items() if entry["share"] is not None}
    if not shares:
        return []
    share_list = ", ".join(share_text(name, entry) for name, entry in shares.items() if name not in ("incoming", "oracle"))
    return [f"The world is synthetic, so the best order is known. Share of the achievable gain in expected NDCG@5: {share_list}."]


def share_text(name: str, entry: Mapping[str, Any]) -> str:
    low, high = entry.get("share_ci", (None, None))
    return f"{name} {entry['share']:.0%}" + (f" [{low:.0%}, {high:.0%}]" if low is not None else "")

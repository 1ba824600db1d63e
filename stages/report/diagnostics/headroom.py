"""What only the synthetic world lets one say: the share of the achievable gain that an order takes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.shared.evaluation.rankings import Rankings
from stages.shared.stats.bootstrap import LEVEL, Bootstrap
from stages.shared.stats.metrics import slate_metrics
from stages.shared.synthetic.world import expected, share_of_achievable


def achievable(rankings: Mapping[str, Rankings], chances_NK: NDArray[np.float64], bootstrap: Bootstrap) -> dict[str, dict[str, Any]]:
    """Expected NDCG@5 of every order, free of the luck of the draw, and the share it takes of the gain from the incoming order to the
    Bayes-optimal one, with its 95 % interval (the ratio anew in every resample of users). None where nothing can be gained."""
    gains = slate_metrics(np.arange(chances_NK.shape[1]))["ndcg@5"]
    values = {name: expected(gains, own.orders, chances_NK) for name, own in rankings.items()}
    labels, index = np.unique(bootstrap.users, return_inverse=True)
    even = np.full(len(labels), 1 / len(labels))
    times_BU = np.random.default_rng(bootstrap.seed).multinomial(len(labels), even, size=bootstrap.resamples)
    sums = {name: times_BU @ np.bincount(index, weights=own - values["incoming"]) for name, own in values.items()}
    found: dict[str, dict[str, Any]] = {}
    for name, own in values.items():
        share = share_of_achievable(own, values["incoming"], values["oracle"])
        found[name] = {"ndcg@5": float(own.mean()), "share": share}
        if share is not None and (sums["oracle"] > 0).all():
            found[name]["share_ci"] = np.quantile(sums[name] / sums["oracle"], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return found


def world_notes(summary: Mapping[str, Any]) -> list[str]:
    shares = {name: own for name, own in summary.get("achievable", {}).items() if own["share"] is not None}
    if not shares:
        return []
    said = ", ".join(share_text(name, own) for name, own in shares.items() if name not in ("incoming", "oracle"))
    return [f"The world is synthetic, so the best order is known. Share of the achievable gain in expected NDCG@5: {said}."]


def share_text(name: str, own: Mapping[str, Any]) -> str:
    low, high = own.get("share_ci", (None, None))
    return f"{name} {own['share']:.0%}" + (f" [{low:.0%}, {high:.0%}]" if low is not None else "")

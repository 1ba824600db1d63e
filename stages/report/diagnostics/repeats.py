"""Several answers of one model to the same slate, at a temperature above zero: how far the worst and the best of them lie apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.stats.bootstrap import Bootstrap, paired_intervals
from stages.shared.stats.metrics import NAMES, order_metrics
from stages.shared.stats.multi_seed import best_mean_worst_of_n


def of_repeats(
    repeated: Mapping[str, Sequence[Rankings]],
    greedy: Mapping[str, Rankings],
    targets: NDArray[np.int_],
    temperature: float,
    bootstrap: Bootstrap,
    grades: NDArray[np.int_] | None = None,
) -> dict[str, Any]:
    """repeated, greedy: by model, of the same n slates; targets [n]: initial rank of the target; grades [n, K], where there are any.
    Against the initial ranking, which is what an invalid answer counts as.

    -> {"n", "temperature", "models": {name: {metric: multi_seed.best_mean_worst_of_n, with "greedy": {"mean", "diff", "diff_ci"} beside}},
    "valid_share": {name: share of all repeats}}
    """

    def measured(rankings: Rankings) -> dict[str, NDArray[np.float64]]:
        return order_metrics(rankings.orders, targets, grades)

    # Whatever the ranker: the initial ranking, as places.
    size = next(iter(greedy.values())).orders.shape[1] if greedy else 1
    incoming_metrics = order_metrics(np.tile(np.arange(size), (len(targets), 1)), targets, grades)
    models: dict[str, dict[str, Any]] = {}
    for name, answers in repeated.items():
        repeat_metrics = [measured(rankings) for rankings in answers]
        greedy_metrics = measured(greedy[name])
        models[name] = {}
        for metric in NAMES:
            values_RN = np.stack([metrics[metric] for metrics in repeat_metrics])
            diff = greedy_metrics[metric] - incoming_metrics[metric]
            [interval] = paired_intervals(diff[:, None], bootstrap).tolist()
            greedy_figures = {"mean": float(greedy_metrics[metric].mean()), "diff": float(diff.mean()), "diff_ci": interval}
            models[name][metric] = best_mean_worst_of_n(values_RN, incoming_metrics[metric], bootstrap) | {"greedy": greedy_figures}
    valid = {name: float(np.mean([rankings.valid for rankings in answers])) for name, answers in repeated.items()}
    return {"n": len(targets), "temperature": temperature, "models": models, "valid_share": valid}

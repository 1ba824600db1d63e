"""Several answers of one model to the same slate, at a temperature above zero: how far the worst and the best of them lie apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.stats.bootstrap import Bootstrap, paired_intervals
from stages.shared.stats.metrics import NAMES, ranks_of_targets, slate_metrics
from stages.shared.stats.multi_seed import best_mean_worst_of_n


def of_repeats(
    repeated: Mapping[str, Sequence[Rankings]],
    greedy: Mapping[str, Rankings],
    targets: NDArray[np.int_],
    temperature: float,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """repeated, greedy: by model, of the same n slates; targets [n]: initial rank of the target. Against the initial ranking, which is
    what an invalid answer counts as.

    -> {"n", "temperature", "models": {name: {metric: multi_seed.best_mean_worst_of_n, with "greedy": {"mean", "diff", "diff_ci"} beside}},
    "valid_share": {name: share of all repeats}}
    """
    incoming_metrics = slate_metrics(targets)
    models: dict[str, dict[str, Any]] = {}
    for name, answers in repeated.items():
        repeat_metrics = [slate_metrics(ranks_of_targets(rankings.orders, targets)) for rankings in answers]
        greedy_metrics = slate_metrics(ranks_of_targets(greedy[name].orders, targets))
        models[name] = {}
        for metric in NAMES:
            values_RN = np.stack([metrics[metric] for metrics in repeat_metrics])
            diff = greedy_metrics[metric] - incoming_metrics[metric]
            [interval] = paired_intervals(diff[:, None], bootstrap).tolist()
            greedy_figures = {"mean": float(greedy_metrics[metric].mean()), "diff": float(diff.mean()), "diff_ci": interval}
            models[name][metric] = best_mean_worst_of_n(values_RN, incoming_metrics[metric], bootstrap) | {"greedy": greedy_figures}
    valid = {name: float(np.mean([rankings.valid for rankings in answers])) for name, answers in repeated.items()}
    return {"n": len(targets), "temperature": temperature, "models": models, "valid_share": valid}

"""By what the held-out slates are cut into parts, and every ranker on each part."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.report.diagnostics.slices import by_slice, in_bins, in_quantiles
from stages.shared.evaluation.test_set import TestSet
from stages.shared.stats.bootstrap import INCOMING, Bootstrap, RankerResults, values_of
from stages.shared.stats.metrics import METRICS

SMALLEST_SLICE = 60  # slates; below that an interval covers too seldom
SHOWN = ("recall@1", "ndcg@5", "mrr")  # of the rankers that the report is not about
Kinds = dict[str, tuple[NDArray[np.int_], list[str]]]


def kinds_of(test_set: TestSet) -> Kinds:
    """kind -> rows of the slates, and the label of each. A target with several categories counts once in each."""
    all_rows = np.arange(len(test_set.slates))
    # By the target, not the slate: the question is for which targets the ranker works.
    target_items = test_set.candidates_NK[all_rows, test_set.targets]
    labelled = [
        (row, category) for row, item in enumerate(target_items.tolist()) for category in test_set.catalog.categories[item] or ["none"]
    ]
    return {
        "history_length": (all_rows, in_quantiles(test_set.positions, 4)),
        "target_popularity": (all_rows, in_quantiles(test_set.counts[target_items], 4)),
        "incoming_rank": (all_rows, in_bins(test_set.targets + 1, [1, 2, 4, 6])),
        "category": (np.array([row for row, _ in labelled]), [category for _, category in labelled]),
    }


def slices_of(results: Mapping[str, RankerResults], subject: str, cuts: Kinds, bootstrap: Bootstrap) -> dict[str, Any]:
    """Against the initial ranking. -> {"slices": {kind: rows} of `subject`, in METRICS; "slices_of": {name: {kind: rows}} of the others,
    in SHOWN}; rows as of by_slice."""
    values = values_of(results)
    before = values.pop(INCOMING)
    values = {name: {metric: by_metric[metric] for metric in (METRICS if name == subject else SHOWN)} for name, by_metric in values.items()}
    tables: dict[str, dict[str, Any]] = {name: {} for name in values}
    for kind, (rows, labels) in cuts.items():
        values_of_kind = {name: {metric: metric_values[rows] for metric, metric_values in of.items()} for name, of in values.items()}
        baseline = {metric: before[metric][rows] for metric in METRICS}
        for name, table in by_slice(values_of_kind, baseline, labels, SMALLEST_SLICE, bootstrap.at(rows)).items():
            tables[name][kind] = table
    return {"slices": tables.pop(subject), "slices_of": tables}

"""Does a ranker lift low targets at the price of sinking those that came in on top? Gains by initial rank, beside what the rank allows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.shared.core.errors import StageError
from stages.shared.stats.bootstrap import Bootstrap, paired_intervals
from stages.shared.stats.metrics import slate_metrics

Ints = NDArray[np.int_]

METRIC = "ndcg@5"


def gains_by_incoming_rank(
    ranks: Mapping[str, Ints], target_rank: Ints, slate_size: int, bootstrap: Bootstrap
) -> dict[str, list[dict[str, Any]]]:
    """ranks: ranker -> [n], the target's new rank; target_rank [n]: its initial one (both from 0).

    -> ranker -> a row for each initial rank that occurs: {"incoming_rank", "n", "rank_gain" and METRIC: {"diff", "diff_ci", "upper",
    "lower", "random"}, "part"}. diff: mean difference from the initial ranking, with its 95 % interval over users (None where all slates
    are of one user); upper, lower: what the rank allows; random: what a shuffle gives on average. part: what the row adds to the
    difference in METRIC over all slates, which is the sum of the parts.
    """
    target_rank = np.asarray(target_rank)
    for name, new_ranks in ranks.items():
        if len(new_ranks) != len(target_rank):
            raise StageError(f"{name}: {len(new_ranks)} ranks for {len(target_rank)} slates; measure every ranker on the same slates")
    if not ranks:
        return {}
    by_rank = slate_metrics(np.arange(slate_size))[METRIC]
    gains = np.stack([target_rank - new_ranks for new_ranks in ranks.values()], axis=1).astype(np.float64)  # [n, rankers]
    diffs = np.stack([by_rank[new_ranks] - by_rank[target_rank] for new_ranks in ranks.values()], axis=1)
    # One table, so that all rankers and both metrics are drawn on the same resamples.
    values = np.concatenate([gains, diffs], axis=1)
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in ranks}
    for rank in np.unique(target_rank).tolist():
        mask = target_rank == rank
        intervals: list[Any] = [None] * values.shape[1]
        # One user cannot be resampled; such a rank has its means and no interval.
        if len(np.unique(bootstrap.at(mask).users)) > 1:
            intervals = paired_intervals(values[mask], bootstrap.at(mask)).tolist()
        means = values[mask].mean(axis=0).tolist()
        for column, name in enumerate(ranks):
            metric_column = column + len(ranks)
            tables[name].append(
                {
                    "incoming_rank": rank,
                    "n": int(mask.sum()),
                    "rank_gain": {"diff": means[column], "diff_ci": intervals[column]} | bounds(rank - np.arange(slate_size)),
                    METRIC: {"diff": means[metric_column], "diff_ci": intervals[metric_column]} | bounds(by_rank - by_rank[rank]),
                    "part": means[metric_column] * float(mask.mean()),
                }
            )
    return tables


def bounds(values: NDArray[Any]) -> dict[str, float]:
    """values [K]: the difference at each new rank. A random order puts the target at each of them equally often."""
    return {"upper": float(values.max()), "lower": float(values.min()), "random": float(values.mean())}


def gain_decomposition(rows: Sequence[Mapping[str, Any]], kind: str = "diff") -> dict[str, float]:
    """What the targets that came in first, and all others, add to the difference in METRIC over all slates.

    rows: of one ranker; kind: "diff", or "random" for what a shuffle would have made of the same slates.
    """
    slates = sum(row["n"] for row in rows)
    by_rank = {row["incoming_rank"]: row["n"] * row[METRIC][kind] / slates for row in rows}
    return {"first": by_rank.get(0, 0.0), "others": sum(part for rank, part in by_rank.items() if rank > 0)}

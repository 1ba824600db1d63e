"""Where a gain comes from: the same metrics on parts of the slates, each part with its own interval."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.shared.core.errors import StageError
from stages.shared.stats.bootstrap import Bootstrap, paired_intervals

Floats = NDArray[np.float64]

OTHER = "other"


def by_slice(
    values: Mapping[str, Mapping[str, Floats]],
    baseline: Mapping[str, Floats],
    labels: Sequence[Any] | NDArray[Any],
    smallest: int,
    bootstrap: Bootstrap,
) -> dict[str, list[dict[str, Any]]]:
    """For each ranker one row a label, numbers in the label in their order, `other` last:
    {"slice", "n", "users", metric: {"mean", "diff", "diff_ci"}}.

    values: ranker -> metric -> [n]; baseline: metric -> [n], of what they are compared with. labels [n]:
    labels of fewer than `smallest` slates are pooled as `other`. diff_ci is None where all slates of a row are of one user. The intervals
    are each of their own row: of twenty rows without any gain, one lies clear of zero by chance.
    A slate with several labels (categories) is given once for each: it counts once in each row.
    """
    names = np.array([str(label) for label in labels], dtype=object)
    lengths = {len(bootstrap.users), len(names), *(len(column) for of in [*values.values(), baseline] for column in of.values())}
    if len(lengths) != 1:
        raise StageError(f"{len(names)} labels for {len(bootstrap.users)} slates; give each slate one label and one value of every metric")
    unique_names, counts = np.unique(names.astype(str), return_counts=True)
    # Pooled, not dropped: the rows of a table add up to all slates.
    names[np.isin(names.astype(str), unique_names[counts < smallest])] = OTHER
    order = sorted(set(names), key=lambda name: (name == OTHER, _natural(name)))
    tables: dict[str, list[dict[str, Any]]] = {ranker: [] for ranker in values}
    for name in order:
        for ranker, row in _rows(name, names == name, values, baseline, bootstrap).items():
            tables[ranker].append(row)
    return tables


def in_bins(numbers: ArrayLike, starts: Sequence[int]) -> list[str]:
    """Whole numbers [n] -> the bin of each, as "5-9" or "20+"; `starts`: the first number of every bin, rising.

    A number before the first start has no bin: StageError.
    """
    whole = np.asarray(numbers)
    if whole.size and whole.min() < starts[0]:
        raise StageError(f"{whole.min()} lies before the first bin, which starts at {starts[0]}")
    ends = [start - 1 for start in starts[1:]]
    texts = [str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=False)] + [f"{starts[-1]}+"]
    return [texts[index] for index in np.searchsorted(starts, whole, side="right") - 1]


def in_quantiles(numbers: ArrayLike, count: int) -> list[str]:
    """Whole numbers [n] -> bins as of in_bins that hold about as many each; equal numbers share a bin, so there may be fewer."""
    # method="higher" gives numbers that occur, so that each bin begins with a whole number.
    starts = np.unique(np.quantile(np.asarray(numbers), np.arange(count) / count, method="higher"))
    return in_bins(numbers, [int(start) for start in starts])


def _rows(
    name: str,
    mask: NDArray[np.bool_],
    values: Mapping[str, Mapping[str, Floats]],
    baseline: Mapping[str, Floats],
    bootstrap: Bootstrap,
) -> dict[str, dict[str, Any]]:
    """One slice: a row a ranker, all on the same resamples."""
    users = len(np.unique(bootstrap.at(mask).users))
    cells = [(ranker, metric) for ranker, by_metric in values.items() for metric in by_metric]
    # All rankers and metrics side by side: one set of resamples serves the whole slice.
    diffs = np.stack([values[ranker][metric][mask] - baseline[metric][mask] for ranker, metric in cells], axis=1)
    intervals: list[Any] = [None] * len(cells)
    if users > 1:
        intervals = paired_intervals(diffs, bootstrap.at(mask)).tolist()
    rows: dict[str, dict[str, Any]] = {ranker: {"slice": name, "n": int(mask.sum()), "users": users} for ranker in values}
    for (ranker, metric), diff, interval in zip(cells, diffs.mean(axis=0).tolist(), intervals, strict=True):
        rows[ranker][metric] = {"mean": float(values[ranker][metric][mask].mean()), "diff": diff, "diff_ci": interval}
    return rows


def _natural(name: str) -> list[str | int]:
    """A key by which "5-9" comes before "10+"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]

"""Where a gain comes from: the same metrics on parts of the slates, each part with its own interval."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.evaluate.bootstrap import paired_intervals
from stages.shared.errors import StageError

Floats = NDArray[np.float64]

OTHER = "other"


def by_slice(
    values: Mapping[str, Floats],
    baseline: Mapping[str, Floats],
    clusters: NDArray[Any],
    labels: Sequence[Any] | NDArray[Any],
    smallest: int,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """One row a label, numbers in the label in their order, `other` last: {"slice", "n", "users", metric: {"mean", "diff", "diff_ci"}}.

    values, baseline: metric -> [n] of a model and of what it is compared with. clusters [n]: the slate's user. labels [n]: labels of fewer
    than `smallest` slates are pooled as `other`. diff_ci is None where all slates of a row are of one user. The intervals are each
    of their own row: of twenty rows without any gain, one lies clear of zero by chance.
    A slate with several labels (categories) is given once for each: it counts once in each row.
    """
    names = np.array([str(label) for label in labels], dtype=object)
    lengths = {len(clusters), len(names), *(len(own) for own in [*values.values(), *baseline.values()])}
    if len(lengths) != 1:
        raise StageError(f"{len(names)} labels for {len(clusters)} slates; give each slate one label and one value of every metric")
    found, counts = np.unique(names.astype(str), return_counts=True)
    names[np.isin(names.astype(str), found[counts < smallest])] = OTHER
    order = sorted(set(names), key=lambda name: (name == OTHER, _natural(name)))
    return [_row(name, names == name, values, baseline, np.asarray(clusters), resamples, seed) for name in order]


def in_bins(numbers: ArrayLike, starts: Sequence[int]) -> list[str]:
    """Whole numbers [n] -> the bin of each, as "5-9" or "20+"; `starts`: the first number of every bin, rising.

    A number before the first start has no bin: StageError.
    """
    whole = np.asarray(numbers)
    if whole.size and whole.min() < starts[0]:
        raise StageError(f"{whole.min()} lies before the first bin, which starts at {starts[0]}")
    ends = [start - 1 for start in starts[1:]]
    texts = [str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=False)] + [f"{starts[-1]}+"]
    return [texts[place] for place in np.searchsorted(starts, whole, side="right") - 1]


def in_quantiles(numbers: ArrayLike, parts: int) -> list[str]:
    """Whole numbers [n] -> bins as of in_bins that hold about as many each; equal numbers share a bin, so there may be fewer."""
    starts = np.unique(np.quantile(np.asarray(numbers), np.arange(parts) / parts, method="higher"))
    return in_bins(numbers, [int(start) for start in starts])


def _row(
    name: str,
    mask: NDArray[np.bool_],
    values: Mapping[str, Floats],
    baseline: Mapping[str, Floats],
    clusters: NDArray[Any],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    users = len(np.unique(clusters[mask]))
    diffs = np.stack([values[metric][mask] - baseline[metric][mask] for metric in values], axis=1)
    intervals: list[Any] = [None] * len(values)
    if users > 1:
        intervals = paired_intervals(diffs, clusters[mask], resamples, seed).tolist()
    rows = zip(values, diffs.mean(axis=0).tolist(), intervals, strict=True)
    return {"slice": name, "n": int(mask.sum()), "users": users} | {
        metric: {"mean": float(values[metric][mask].mean()), "diff": diff, "diff_ci": interval} for metric, diff, interval in rows
    }


def _natural(name: str) -> list[str | int]:
    """A key by which "5-9" comes before "10+"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]

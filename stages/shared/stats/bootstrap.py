"""Paired cluster bootstrap: how far a model lies from another on the same slates, with users as the unit of chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NotRequired, Self, TypedDict

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from stages.shared.core.errors import StageError
from stages.shared.stats.metrics import METRICS, all_metrics

Floats = NDArray[np.float64]

INCOMING = "incoming"
LEVEL = 0.95
_CHUNK = 4_000_000  # draws held at once: 32 MB


class RankerResults(TypedDict):
    """A ranker on the n slates. rank [n]: of the target, from 0; valid, identical [n]: identical = the initial ranking again.

    values: metrics.order_metrics, where slates have grades and so more than the target counts.
    """

    rank: NDArray[np.int_]
    valid: NDArray[np.bool_]
    identical: NDArray[np.bool_]
    values: NotRequired[dict[str, Floats]]


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn: whole users at a time, for the slates of one user are not independent. users [n]: each slate's user."""

    users: NDArray[np.generic]
    resamples: int
    seed: int

    def at(self, rows: Sequence[int] | NDArray[np.generic]) -> Self:
        """The same draws on the slates of these rows (indices, or a mask [n])."""
        return replace(self, users=np.asarray(self.users)[rows])


@dataclass(frozen=True)
class Resampling:
    """How often to draw, and with which seed, where the slates differ from one comparison to the next."""

    resamples: int
    seed: int

    def of(self, users: NDArray[np.generic]) -> Bootstrap:
        """The draws on slates of these users [n]."""
        return Bootstrap(users, self.resamples, self.seed)


def paired_interval(diff: Floats, bootstrap: Bootstrap) -> tuple[float, float]:
    """95 % interval of the mean of diff [n]."""
    low, high = paired_intervals(np.asarray(diff, dtype=np.float64)[:, None], bootstrap)[0]
    return float(low), float(high)


def paired_intervals(diffs: Floats, bootstrap: Bootstrap) -> Floats:
    """As paired_interval for the m columns of diffs [n, m], all on the same resamples -> [m, 2].

    The statistic is a ratio, sum over the drawn clusters / slates in the drawn clusters, so clusters may differ in size
    (Field and Welsh 2007, the randomised cluster bootstrap).
    """
    if len(diffs) == 0:
        raise StageError("no slates to resample; the test split holds no slate with its target")
    labels, index = np.unique(bootstrap.users, return_inverse=True)
    if len(labels) == 1:
        raise StageError(f"all {len(diffs)} slates are of one user, {labels[0]}; an interval needs two users, so raise evaluate.max_slates")
    sizes = np.bincount(index).astype(np.float64)
    sums = np.stack([np.bincount(index, weights=column) for column in diffs.T], axis=1)  # [clusters, m]
    rng = np.random.default_rng(bootstrap.seed)
    even = np.full(len(labels), 1 / len(labels))
    means = []
    for start in range(0, bootstrap.resamples, step := max(1, _CHUNK // len(labels))):
        # A draw of all clusters with replacement is a multinomial vector of how often each was drawn.
        times = rng.multinomial(len(labels), even, size=min(step, bootstrap.resamples - start)).astype(np.float64)
        means.append((times @ sums) / (times @ sizes)[:, None])
    tail = expanded_tail(len(labels))
    bounds: Floats = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)  # [2, m]
    return bounds.T


def expanded_tail(clusters: int) -> float:
    """The quantile at which the interval is cut: 0.025 for many clusters, less for few, where plain percentiles are too narrow.

    The expanded percentile interval of Hesterberg (2015, section 5.3): it makes up for the bootstrap's factor (G - 1) / G in the
    variance and for the missing t quantile. 0.0248 for 647 clusters, 0.016 for 20.
    """
    t = scipy.stats.t.ppf((1 - LEVEL) / 2, clusters - 1)
    return float(scipy.stats.norm.cdf(t * np.sqrt(clusters / (clusters - 1))))


def summarise(
    models: Mapping[str, RankerResults],
    bootstrap: Bootstrap,
    contrasts: Sequence[tuple[str, str]] = (),
    missed: Mapping[int, int] | None = None,
) -> dict[str, Any]:
    """The stage's metrics.json.

    models: by name, on the same slates in the same order, `incoming` among them. contrasts: (a, b) -> `contrasts.a-b`.
    missed: user -> how many of the user's slates lack their target; each of them counts 0 in every metric of `all_slates`.
    -> {"slates", "users", "bootstrap": {"resamples", "seed", "level"}, "models": {name: {"n", metric: {"mean", "diff", "diff_ci"}, ...,
    "valid_share", "identity_share", "all_slates": {"n", metric: ...}}}, "contrasts": {"a-b": the same shape, with a's mean and the
    difference from b}, "all_slates": {"slates", "users", "hit_rate"}}; `all_slates` only where `missed` is given.
    """
    clusters = np.asarray(bootstrap.users)
    _check(models, clusters, contrasts, missed)
    values = {name: np.stack(list(by_metric.values()), axis=1) for name, by_metric in values_of(models).items()}  # [n, metrics]
    pairs = [*((name, INCOMING) for name in models), *contrasts]
    entries = [
        entry | {"valid_share": float(np.mean(models[name]["valid"])), "identity_share": float(np.mean(models[name]["identical"]))}
        for (name, _), entry in zip(pairs, _measure(values, pairs, bootstrap), strict=True)
    ]
    summary: dict[str, Any] = {
        "slates": len(clusters),
        "users": len(np.unique(clusters)),
        "bootstrap": {"resamples": bootstrap.resamples, "seed": bootstrap.seed, "level": LEVEL},
    }
    if missed is not None:
        everyone = np.concatenate([clusters, np.repeat(list(missed), list(missed.values())).astype(clusters.dtype)])
        # A slate without its target scores 0 whatever the order, for the initial ranking, too: its difference is 0.
        misses = np.zeros((len(everyone) - len(clusters), len(METRICS)))
        padded = {name: np.concatenate([metrics_NM, misses]) for name, metrics_NM in values.items()}
        for entry, all_slates_entry in zip(entries, _measure(padded, pairs, replace(bootstrap, users=everyone)), strict=True):
            entry["all_slates"] = all_slates_entry
        hit_rate = len(clusters) / len(everyone)
        summary["all_slates"] = {"slates": len(everyone), "users": len(np.unique(everyone)), "hit_rate": hit_rate}
    return summary | {
        "models": dict(zip(models, entries, strict=False)),
        "contrasts": {f"{a}-{b}": entry for (a, b), entry in zip(contrasts, entries[len(models) :], strict=True)},
    }


def values_of(models: Mapping[str, RankerResults]) -> dict[str, dict[str, Floats]]:
    """name -> metric -> [n], in the order of METRICS."""
    incoming = models[INCOMING]["rank"]
    return {name: model["values"] if "values" in model else all_metrics(model["rank"], incoming) for name, model in models.items()}


def _measure(values: Mapping[str, Floats], pairs: Sequence[tuple[str, str]], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """values: name -> [n, metrics] -> for each pair (a, b) its {"n", metric: a's mean, the difference from b, its interval}."""
    diffs = np.stack([values[name] - values[other] for name, other in pairs], axis=1)  # [n, pairs, metrics]
    intervals = paired_intervals(diffs.reshape(len(diffs), -1), bootstrap).reshape(len(pairs), len(METRICS), 2)
    entries: list[dict[str, Any]] = []
    for pair, (name, _) in enumerate(pairs):
        means, gaps = values[name].mean(axis=0), diffs[:, pair].mean(axis=0)
        rows = zip(METRICS, means.tolist(), gaps.tolist(), intervals[pair].tolist(), strict=True)
        entries.append({"n": len(diffs)} | {metric: {"mean": mean, "diff": gap, "diff_ci": ci} for metric, mean, gap, ci in rows})
    return entries


def _check(
    models: Mapping[str, RankerResults],
    clusters: NDArray[np.generic],
    contrasts: Sequence[tuple[str, str]],
    missed: Mapping[int, int] | None,
) -> None:
    for name in {INCOMING, *(name for pair in contrasts for name in pair)} - set(models):
        raise StageError(f"no results of '{name}' to compare with (measured: {', '.join(models)})")
    for name, model in models.items():
        for key in ("rank", "valid", "identical"):
            if len(model[key]) != len(clusters):
                raise StageError(
                    f"{name}: {len(model[key])} values of '{key}' for {len(clusters)} slates; measure every model on the same slates"
                )
    for user, count in (missed or {}).items():
        if count < 0:
            raise StageError(f"user {user}: {count} missed slates; count the slates whose target_rank is -1")

"""How many slates it takes to see a gain, from the differences already observed: `gr2 power --gain 0.01`."""

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.optimize
from numpy.typing import NDArray
from scipy.stats import norm

from stages.shared.core.errors import StageError
from stages.shared.evaluation.outputs_table import OUTPUTS, answers_of, read_greedy
from stages.shared.stats.bootstrap import INCOMING
from stages.shared.stats.metrics import QUALITY, all_metrics

Floats = NDArray[np.float64]

METRICS = (*QUALITY, "rank_gain")

COLUMNS = ("slate", "user", "model", "target_rank", "new_rank")


@dataclass(frozen=True)
class Spread:
    """How much the paired differences of n slates vary, and how much alike those of one user are."""

    n: int
    users: int
    gain: float  # mean difference
    sd: float  # of a slate's difference
    correlation: float  # within a user
    design_effect: float
    discordant: float | None  # share of slates that only one of the two hits; None where the metric is not hit or miss

    @property
    def standard_error(self) -> float:
        return self.sd * math.sqrt(self.design_effect / self.n)


def spread(diff: Floats, cluster: NDArray[np.generic], hit_or_miss: bool) -> Spread:
    """diff [n]: a ranker's metric minus another's; cluster [n]: the slate's user; hit_or_miss: the metric is 0 or 1, so diff is -1, 0 or 1.

    The design effect is 1 + (m - 1) * correlation, m the mean number of slates a user, weighted by itself where users differ
    (Kish 1965; Kerry and Bland 2001).
    """
    diff = np.asarray(diff, dtype=np.float64)
    _, index = np.unique(cluster, return_inverse=True)
    sizes = np.bincount(index).astype(np.float64)
    if len(sizes) < 2:
        raise StageError(f"{len(diff)} slates of {len(sizes)} user(s) tell nothing of the spread over users; raise evaluate.max_slates")
    correlation = max(0.0, intra_user_correlation(diff, index))  # below zero is chance: it would promise too much
    effect = 1 + (float(sizes @ sizes / len(diff)) - 1) * correlation
    discordant = float((diff != 0).mean()) if hit_or_miss else None
    return Spread(len(diff), len(sizes), float(diff.mean()), float(diff.std(ddof=1)), correlation, effect, discordant)


def intra_user_correlation(diff: Floats, index: NDArray[np.int_]) -> float:
    """Of the differences of one user's slates, every pair of slates with equal weight (Karlin, Cameron and Williams 1981).

    index [n]: the user, from 0. So weighted, the design effect gives just the variance that resampling users gives; the estimate from an
    analysis of variance does not, where users of many slates differ less than users of one. 0 where no user has two slates.
    """
    centred = diff - diff.mean()
    sizes, sums = np.bincount(index), np.bincount(index, weights=centred)
    pairs, square = float((sizes * (sizes - 1)).sum()), float(centred @ centred)
    return float(sums @ sums - square) / pairs / (square / len(diff)) if pairs and square else 0.0


def slates_needed(observed: Spread, gain: float, power: float, alpha: float) -> int:
    """Slates on which a true `gain` gives p < alpha, two-sided, with the chance `power`, if new users are like the ones observed.

    Hit or miss: by the share of discordant slates (Connor 1987, McNemar's test). Else the paired z test. Times the design effect.
    """
    reach, beyond = _quantiles(power, alpha)
    _check(observed)
    if gain <= 0:
        raise StageError(f"--gain {gain:g}: give the gain to see as a number above zero")
    if observed.discordant is None:
        return math.ceil(observed.design_effect * ((reach + beyond) * observed.sd / gain) ** 2)
    if gain > observed.discordant:
        raise StageError(
            f"--gain {gain:g} is more than the share of slates on which the two rankers disagree, {observed.discordant:.4f}: "
            "no number of slates shows it; ask for a smaller gain"
        )
    root = reach * math.sqrt(observed.discordant) + beyond * math.sqrt(observed.discordant - gain**2)
    return math.ceil(observed.design_effect * (root / gain) ** 2)


def smallest_gain(observed: Spread, power: float, alpha: float, slates: int | None = None) -> float | None:
    """The true gain that `slates` (default: as many as observed) show with the chance `power`; the inverse of slates_needed.

    None where not even the largest gain that the discordant slates allow would show.
    """
    reach, beyond = _quantiles(power, alpha)
    _check(observed)
    effective = (slates or observed.n) / observed.design_effect
    if observed.discordant is None:
        return (reach + beyond) * observed.sd / math.sqrt(effective)
    discordant = observed.discordant

    def short(gain: float) -> float:
        return reach * math.sqrt(discordant) + beyond * math.sqrt(discordant - gain**2) - math.sqrt(effective) * gain

    # A gain cannot exceed the share of slates on which the two differ, so that is where the search ends.
    return None if short(discordant) > 0 else float(scipy.optimize.brentq(short, 0.0, discordant))


def read_differences(path: Path, model: str, against: str, metric: str) -> tuple[Floats, NDArray[np.generic]]:
    """Of the slates in outputs.parquet: the metric of `model` minus that of `against` [n], and the users [n]."""
    table = read_greedy(path, COLUMNS)
    first, second = (answers_of(table, path, name) for name in (model, against))
    if first["slate"].to_list() != second["slate"].to_list():
        raise StageError(f"{path}: the models '{model}' and '{against}' answered different slates; rerun: gr2 run evaluate")
    first_values, second_values = (
        all_metrics(answers["new_rank"].to_numpy(), answers["target_rank"].to_numpy())[metric] for answers in (first, second)
    )
    return first_values - second_values, first["user"].to_numpy()


def describe(observed: Spread, gain: float, power: float, alpha: float) -> list[str]:
    """What the command prints below its heading."""
    needed, visible = slates_needed(observed, gain, power, alpha), smallest_gain(observed, power, alpha)
    a_user = observed.n / observed.users
    disagree = "" if observed.discordant is None else f"; the two disagree on {observed.discordant:.1%} of the slates"
    return [
        f"now: {observed.n:,} slates of {observed.users:,} users ({a_user:.2f} a user); observed gain {observed.gain:+.4f}, "
        f"standard error {observed.standard_error:.4f}",
        f"spread of a slate's difference {observed.sd:.4f}; correlation within a user {observed.correlation:.3f}, "
        f"design effect {observed.design_effect:.3f}{disagree}",
        f"smallest gain visible now: {'none' if visible is None else f'{visible:.4f}'} (power {power:g}, alpha {alpha:g} two-sided)",
        f"needed for a gain of {gain:g}: {needed:,} slates, of about {math.ceil(needed / a_user):,} users like these "
        f"({needed / observed.n:.2f} times as many as now)",
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="gr2 power", description="Slates needed to see a gain, from the outputs of the last evaluation.")
    parser.add_argument("--gain", type=float, required=True, help="the true gain that should be seen")
    parser.add_argument("--metric", choices=METRICS, default="ndcg@5")
    parser.add_argument("--model", default="rl")
    parser.add_argument("--against", default=INCOMING, help="the model or baseline it is paired with")
    parser.add_argument("--power", type=float, default=0.8, help="chance to see it")
    parser.add_argument("--alpha", type=float, default=0.05, help="level of the two-sided test")
    options = parser.parse_args(arguments)
    try:
        diff, users = read_differences(OUTPUTS, options.model, options.against, options.metric)
        observed = spread(diff, users, options.metric.startswith("recall@"))
        lines = describe(observed, options.gain, options.power, options.alpha)
    except StageError as error:
        sys.exit(f"gr2 power: {error}")
    print(f"{options.metric} of {options.model} against {options.against}, {OUTPUTS}", *lines, sep="\n")


def _quantiles(power: float, alpha: float) -> tuple[float, float]:
    if not 0 < alpha < power < 1:
        raise StageError(f"--alpha {alpha:g} --power {power:g}: both lie between 0 and 1, and the power above alpha")
    return float(norm.ppf(1 - alpha / 2)), float(norm.ppf(power))


def _check(observed: Spread) -> None:
    # All pairs tie, as for a model that copies: any number of slates would show nothing.
    if observed.sd == 0:
        raise StageError(
            f"the difference is {observed.gain:g} on every slate, so it has no spread to reckon with; choose another --metric or --model"
        )


if __name__ == "__main__":
    main()

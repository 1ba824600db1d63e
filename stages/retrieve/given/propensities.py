"""The chance that a user looked at a candidate where it stood: what inverse-propensity weights divide by.

A candidate is taken if it is looked at and wanted, and whether it is looked at depends on its place alone (the position-based model of
Craswell et al. 2008). Then a taken candidate at a place with propensity p stands for 1/p wanted ones (Joachims, Swaminathan and Schnabel
2017, arXiv 1608.04468).
"""

from collections.abc import Sequence

import numpy as np

from stages.retrieve.given.placing import PlacedSlate
from stages.retrieve.params import GivenParams
from stages.shared.core.errors import StageError


def propensities(placed: Sequence[PlacedSlate], params: GivenParams) -> list[list[float] | None]:
    """Of each slate, by place, from where retrieve.given.propensity says; None where nobody says."""
    lengths = [len(slate.candidates) for slate in placed]
    if params.propensity == "none":
        return [None] * len(placed)
    if params.propensity == "logged":
        return [np.maximum(slate.impression.propensities or (), params.least_propensity).tolist() for slate in placed]
    by_place = assumed(max(lengths), params.power) if params.propensity == "power" else randomised(placed)
    return [np.maximum(by_place[:length], params.least_propensity).tolist() for length in lengths]


def assumed(count: int, power: float) -> np.ndarray:
    """[count]: (1 / place) ** power, as Joachims et al. assume it."""
    curve: np.ndarray = (1.0 / np.arange(1, count + 1)) ** power
    return curve


def randomised(placed: Sequence[PlacedSlate]) -> np.ndarray:
    """[K]: share of the training slates in which the candidate at a place was taken, over that of the likeliest place.

    Right where the order shown was drawn at random: then wanted candidates stand everywhere alike, and what differs is the looking.
    """
    train = [slate for slate in placed if slate.split == "train"]
    width = max(len(slate.candidates) for slate in placed)
    shown, taken = np.zeros(width), np.zeros(width)
    for slate in train:
        shown[: len(slate.candidates)] += 1
        taken[: len(slate.candidates)] += np.array(slate.impression.grades) > 0
    if empty := np.flatnonzero(taken == 0).tolist():
        raise StageError(
            f"retrieve.given.propensity randomised: nothing was taken at place {empty[0] + 1} in the {len(train)} training slates, so its "
            "propensity is not known; lower retrieve.candidates, or choose power or none"
        )
    shares = taken / shown
    return shares / shares.max()

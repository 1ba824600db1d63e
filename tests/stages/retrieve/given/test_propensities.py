"""Where propensities come from, and that the slates keep them."""

import numpy as np
import pytest

from stages.retrieve.given.impression import Impression
from stages.retrieve.given.placing import PlacedSlate
from stages.retrieve.given.propensities import propensities
from stages.retrieve.params import GivenParams
from stages.shared.core.errors import StageError


def placed(grades: tuple[int, ...], split: str = "train", logged: tuple[float, ...] | None = None) -> PlacedSlate:
    items = tuple(map(str, range(len(grades))))
    return PlacedSlate(0, 1, 0, split, [9], list(range(len(grades))), 0, Impression("u", 0, items, grades, None, logged))


def test_assumed_logged_and_none() -> None:
    slates = [placed((1, 0, 0)), placed((0, 1), logged=(0.5, 0.001))]
    assert propensities(slates, GivenParams()) == [None, None]
    assert propensities(slates, GivenParams(propensity="power", power=2.0)) == [[1, 0.25, pytest.approx(1 / 9)], [1, 0.25]]
    logged = GivenParams(propensity="logged", propensities="p")
    assert propensities(slates[1:], logged) == [[0.5, 0.01]]  # never below least_propensity


def test_of_a_random_order_they_are_found_again() -> None:
    rng = np.random.default_rng(0)
    true = np.array([1.0, 0.6, 0.3])
    grades = (rng.random((6000, 3)) < 0.5 * true).astype(int)
    train = [placed(tuple(row)) for row in grades.tolist()]
    found = propensities([*train, placed((1, 1, 1), "test")], GivenParams(propensity="randomised"))
    np.testing.assert_allclose(found[-1], true, atol=0.05)


def test_a_place_where_nothing_was_taken_has_none() -> None:
    with pytest.raises(StageError, match="nothing was taken at place 2"):
        propensities([placed((1, 0))], GivenParams(propensity="randomised"))

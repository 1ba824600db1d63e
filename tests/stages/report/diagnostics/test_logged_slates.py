"""Inverse-propensity weights against a simulation whose users look at places with known probabilities."""

import numpy as np
import pytest

from stages.report.diagnostics.logged_slates import inverse_propensity, logged_notes
from stages.shared.slates.reranking.rankings import Rankings, from_scores
from stages.shared.stats.bootstrap import Bootstrap
from stages.shared.stats.metrics import order_metrics

N, K = 4000, 6


def rankings(**orders: np.ndarray) -> dict[str, Rankings]:
    return {name: Rankings(order, [""] * len(order), [""] * len(order)) for name, order in orders.items()}


def test_the_weighted_mean_is_that_of_users_who_look_everywhere() -> None:
    """A candidate of true interest w is taken where it is looked at, with probability (1 / place) ** 1.5; the log's order is bad."""
    rng = np.random.default_rng(0)
    wanted = rng.random((N, K)) < np.linspace(0.1, 0.7, K)  # the last ones are wanted most, and seen least
    seen = np.tile((1 / np.arange(1, K + 1)) ** 1.5, (N, 1))
    taken = wanted & (rng.random((N, K)) < seen)
    keep = taken.any(axis=1)
    grades, propensities, incoming = taken[keep].astype(int), seen[keep], np.tile(np.arange(K), (keep.sum(), 1))
    shown = rankings(incoming=incoming, reversed=incoming[:, ::-1])
    users = Bootstrap(np.arange(keep.sum()), 100, 1)
    found = inverse_propensity(shown, grades.argmax(axis=1), grades, propensities, users)["models"]

    def truth(order: np.ndarray) -> float:
        discounts = np.where(np.arange(K) < 5, 1 / np.log2(np.arange(K) + 2.0), 0)
        return float((wanted[:, order] @ discounts).sum() / wanted.sum())

    plain = inverse_propensity(shown, grades.argmax(axis=1), grades, np.ones_like(propensities), users)["models"]
    # Slates from which nothing was taken are not logged, so the estimate leans a little to what is taken anyway.
    for name, order in (("incoming", np.arange(K)), ("reversed", np.arange(K)[::-1])):
        assert abs(found[name]["mean"] - truth(order)) < 0.04 < abs(plain[name]["mean"] - truth(order))
    assert plain["reversed"]["diff_ci"][1] < 0 < found["reversed"]["diff_ci"][0]


def test_with_one_taken_and_equal_propensities_it_is_ndcg() -> None:
    rng = np.random.default_rng(1)
    orders, targets = from_scores(rng.random((50, K))).orders, rng.integers(0, K, 50)
    incoming = np.tile(np.arange(K), (50, 1))
    found = inverse_propensity(
        rankings(incoming=incoming, rl=orders), targets, None, np.full((50, K), 0.5), Bootstrap(np.arange(50) // 2, 50, 1)
    )
    assert found["models"]["rl"]["mean"] == pytest.approx(order_metrics(orders, targets)["ndcg@5"].mean())
    assert found["taken"] == 50 and found["effective"] == pytest.approx(50) and found["heaviest"] == pytest.approx(0.02)
    assert found["models"]["incoming"]["diff"] == 0 and found["models"]["incoming"]["diff_ci"] == [0, 0]


def test_notes_say_what_the_order_is_and_whence_the_propensities() -> None:
    assert logged_notes({}, None) == []
    given = {
        "several_taken": 0.25,
        "order": "shown",
        "propensities": "power",
        "places": [{"place": 1, "shown": 4, "taken": 3, "share": 0.75}],
    }
    weighted = {
        "taken": 10,
        "effective": 7.4,
        "models": {"incoming": {"mean": 0.4}, "rl": {"mean": 0.5, "diff": 0.1, "diff_ci": [0.0, 0.2]}},
    }
    first, second, third = logged_notes({"inverse_propensity": weighted}, given)
    assert first.startswith("From 25.0% of the slates") and "at place 1 75% were taken" in second
    assert "assumed to fall with the place" in third and "is 0.400 as it came" in third and "rl 0.500 (+0.100 [+0.000, +0.200])" in third
    assert "says nothing" in logged_notes({}, given | {"order": "shuffled", "several_taken": 0})[0]

"""The upper bound of a rate: the exact one where slates are independent, wider where they are not, and right as often as it says."""

import numpy as np
import pytest
import scipy.stats

from stages.promote.bounds import upper_bound


@pytest.mark.parametrize(("hits", "slates"), [(0, 50), (3, 50), (20, 400)])
def test_one_slate_a_user_is_clopper_and_pearson(hits: int, slates: int) -> None:
    events = np.arange(slates) < hits
    expected = scipy.stats.binomtest(hits, slates).proportion_ci(0.90, method="exact").high  # two-sided 90 % = one-sided 95 %
    assert upper_bound(events, np.arange(slates), 0.05) == pytest.approx(expected, rel=0.02)


def test_slates_that_repeat_each_other_are_worth_one() -> None:
    """Ten slates of a user with the same outcome tell as much as one."""
    events = np.arange(60) < 6
    alone = upper_bound(events, np.arange(60), 0.05)
    assert upper_bound(np.repeat(events, 10), np.repeat(np.arange(60), 10), 0.05) == pytest.approx(alone, rel=0.03)
    assert upper_bound(np.tile(events, 10), np.arange(600), 0.05) < alone - 0.02


def test_nothing_seen_is_worth_its_users() -> None:
    assert upper_bound(np.zeros(1000, bool), np.repeat(np.arange(100), 10), 0.05) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert upper_bound(np.ones(10, bool), np.arange(10), 0.05) == 1.0


def test_the_true_rate_is_above_it_as_seldom_as_it_says() -> None:
    """Users differ (beta-binomial), rate 0.1; 500 draws, delta 0.1."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(80), 5)
    misses = 0
    for _ in range(500):
        chances = rng.beta(1, 9, 80)
        misses += upper_bound(rng.random(400) < chances[users], users, 0.1) < 0.1
    assert misses <= 500 * 0.1 + 2.5 * np.sqrt(500 * 0.09)

from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from stages.shared.core.errors import StageError
from stages.shared.stats import significance as significance_module
from stages.shared.stats.bootstrap import Bootstrap
from stages.shared.stats.significance import holm, mcnemar, sign_flip_test, sign_flip_tests, significance


def enumerated(diff, cluster):
    """The exact p-value, every pattern of signs written out."""
    users = sorted(set(cluster))
    sums = [sum(d for d, user in zip(diff, cluster, strict=True) if user == own) for own in users]
    totals = [abs(sum(sign * own for sign, own in zip(signs, sums, strict=True))) for signs in product((-1, 1), repeat=len(sums))]
    return np.mean([total >= abs(sum(sums)) - 1e-9 for total in totals])


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 6)), min_size=1, max_size=20))
def test_few_users_give_the_exact_p_value(pairs):
    diff, cluster = np.array(pairs).T
    assert sign_flip_test(diff / 3, cluster, flips=1000, seed=0) == pytest.approx(enumerated(diff / 3, cluster))


def test_drawn_flips_come_near_the_exact_p_value():
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(12), 3)
    diffs = rng.normal([0.0, 0.2, 0.4], 1, (36, 3))
    drawn = sign_flip_tests(diffs, cluster, flips=4095, seed=2)  # one too few to enumerate
    exact = sign_flip_tests(diffs, cluster, flips=4096, seed=2)
    np.testing.assert_allclose(exact, [enumerated(diff, cluster) for diff in diffs.T])
    np.testing.assert_allclose(drawn, exact, atol=0.025)
    assert (drawn != exact).any()


def test_users_of_one_slate_agree_with_scipy():
    diff = np.random.default_rng(3).normal(0.3, 1, 40)
    expected = scipy.stats.permutation_test(
        (diff, np.zeros(40)), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=20_000, rng=4
    ).pvalue
    assert sign_flip_test(diff, np.arange(40), 20_000, seed=5) == pytest.approx(expected, abs=0.01)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_mcnemar_is_the_sign_flip_test_of_users_of_one_slate(pairs):
    first, second = np.array(pairs).T
    found = mcnemar(first, second)
    assert (found["only_first"], found["only_second"]) == ((first > second).sum(), (first < second).sum())
    assert found["p"] == pytest.approx(enumerated(first.astype(int) - second.astype(int), range(len(first))))


def test_mcnemar_of_a_textbook_table():
    """10 against 2 discordant pairs: 2 * (C(12,0) + C(12,1) + C(12,2)) / 2**12."""
    first, second = np.repeat([1, 0, 1, 0], [10, 2, 30, 8]), np.repeat([0, 1, 1, 0], [10, 2, 30, 8])
    assert mcnemar(first, second) == {"only_first": 10, "only_second": 2, "p": pytest.approx(2 * (1 + 12 + 66) / 4096)}
    assert mcnemar(first, first)["p"] == 1.0


def test_users_who_agree_with_themselves_are_one_piece_of_evidence():
    """Ten hits gained, all by one of two users: McNemar calls that certain, the test over users does not."""
    diff, cluster = np.repeat([1.0, 0.0], [10, 10]), np.repeat([0, 1], 10)
    assert mcnemar(diff, np.zeros(20))["p"] < 0.01
    assert sign_flip_test(diff, cluster, 1000, seed=0) == 1.0


def test_under_no_difference_small_p_values_are_as_rare_as_they_say():
    rng = np.random.default_rng(6)
    cluster = np.repeat(np.arange(60), rng.integers(1, 6, 60))
    diffs = rng.normal(size=(60, 2000))[cluster] + rng.normal(size=(len(cluster), 2000))
    p = sign_flip_tests(diffs, cluster, flips=999, seed=7)
    assert 0.035 < np.mean(p <= 0.05) < 0.065
    over_slates = sign_flip_tests(diffs[:, :300], np.arange(len(cluster)), flips=999, seed=7)
    assert np.mean(over_slates <= 0.05) > 0.1


def test_flips_in_pieces_and_no_difference_at_all(monkeypatch):
    assert sign_flip_test(np.zeros(5), np.arange(5), 10, seed=0) == 1.0
    diff, cluster = np.random.default_rng(8).normal(0.2, 1, 90), np.repeat(np.arange(45), 2)
    whole = sign_flip_test(diff, cluster, 4000, seed=9)
    assert whole == sign_flip_test(diff, cluster, 4000, seed=9)
    monkeypatch.setattr(significance_module, "_CHUNK", 45 * 64)
    assert sign_flip_test(diff, cluster, 4000, seed=9) == pytest.approx(whole, abs=0.03)
    with pytest.raises(StageError, match="no slates to test"):
        sign_flip_test(np.array([]), np.array([]), 10, 0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_what_the_procedure_rejects(p, alpha):
    """Holm's own words: go up from the smallest, stop at the first p above alpha / (tests left)."""
    rejected = set()
    for left, place in zip(range(len(p), 0, -1), sorted(range(len(p)), key=p.__getitem__), strict=True):
        if p[place] * left > alpha:
            break
        rejected.add(place)
    assert {place for place, own in enumerate(holm(np.array(p))) if own <= alpha} == rejected


def test_holm_of_an_example_worked_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    with pytest.raises(StageError, match="nan is not a p-value"):
        holm(np.array([0.1, np.nan]))


def test_holm_lets_a_family_of_nulls_through_once_in_twenty():
    p = np.random.default_rng(10).random((4000, 20))
    families = np.mean([(holm(own) <= 0.05).any() for own in p])
    assert 0.04 < families < 0.06 < np.mean((p <= 0.05).any(axis=1))


def test_the_table_finds_the_planted_gain_and_nothing_else():
    rng = np.random.default_rng(11)
    incoming = rng.integers(0, 10, 400)
    models = {
        "incoming": {"rank": incoming},
        "rl": {"rank": np.where(rng.random(400) < 0.3, 0, incoming)},
        "chance": {"rank": np.clip(incoming + rng.choice([-1, 1], 400) * (rng.random(400) < 0.3), 0, 9)},
        "copy": {"rank": incoming},
    }
    pairs = [("rl", "incoming"), ("chance", "incoming"), ("copy", "incoming"), ("rl", "chance"), ("rl", "incoming")]
    table = significance(models, Bootstrap(np.repeat(np.arange(200), 2), 100, 12), pairs, metrics=("recall@1", "ndcg@5"))
    assert (table["tests"], table["flips"]) == (8, 3200)
    found = table["pairs"]
    assert list(found) == ["rl-incoming", "chance-incoming", "copy-incoming", "rl-chance"]
    for metric in ("recall@1", "ndcg@5", "mcnemar"):
        assert found["rl-incoming"][metric]["p_holm"] < 0.01 and found["rl-chance"][metric]["p_holm"] < 0.01
        assert found["copy-incoming"][metric]["p"] == found["copy-incoming"][metric]["p_holm"] == 1.0
        assert found["chance-incoming"][metric]["p_holm"] > 0.05
        assert all(own[metric]["p"] <= own[metric]["p_holm"] for own in found.values())
    assert found["rl-incoming"]["mcnemar"]["only_first"] == np.sum((models["rl"]["rank"] == 0) & (incoming != 0))
    flat = [own[metric] for own in found.values() for metric in ("recall@1", "ndcg@5")]
    np.testing.assert_allclose([cell["p_holm"] for cell in flat], holm(np.array([cell["p"] for cell in flat])))
    with pytest.raises(StageError, match="no results of 'sft'"):
        significance(models, Bootstrap(np.arange(400), 10, 0), [("rl", "sft")])

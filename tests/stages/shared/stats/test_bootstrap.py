import numpy as np
import pytest
import scipy.stats

from stages.shared.core.errors import StageError
from stages.shared.stats import bootstrap
from stages.shared.stats.bootstrap import Bootstrap, expanded_tail, paired_interval, paired_intervals, summarise
from stages.shared.stats.metrics import METRICS, NAMES


def planted(n=300, seed=0):
    """Initial ranks, and a model that lifts two thirds of the targets to the top."""
    rng = np.random.default_rng(seed)
    incoming = rng.integers(0, 10, n)
    lifted = np.where(rng.random(n) < 2 / 3, 0, incoming)
    models = {
        "incoming": {"rank": incoming, "valid": np.ones(n, bool), "identical": np.ones(n, bool)},
        "rl": {"rank": lifted, "valid": rng.random(n) < 0.9, "identical": lifted == incoming},
        "copy": {"rank": incoming, "valid": np.ones(n, bool), "identical": np.ones(n, bool)},
    }
    return models, np.repeat(np.arange(n // 3), 3)


def test_clusters_of_one_agree_with_scipy():
    diff = np.random.default_rng(1).normal(0.1, 1, 200)
    expected = scipy.stats.bootstrap((diff,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    np.testing.assert_allclose(paired_interval(diff, Bootstrap(np.arange(200), 20_000, 3)), expected, atol=0.008)  # interval length 0.28


def test_unequal_clusters_agree_with_a_loop_over_users():
    rng = np.random.default_rng(4)
    cluster = rng.permutation(np.repeat(np.arange(60), rng.integers(1, 9, 60)))
    diff = rng.normal(size=60)[cluster] + rng.normal(size=len(cluster))
    of_user = [diff[cluster == user] for user in range(60)]
    means = [np.concatenate([of_user[user] for user in rng.integers(0, 60, 60)]).mean() for _ in range(4000)]
    np.testing.assert_allclose(paired_interval(diff, Bootstrap(cluster, 8000, 5)), np.quantile(means, [0.025, 0.975]), atol=0.025)


SIZES, SIZE_SHARES = np.array([1, 2, 3, 8]), np.array([0.4, 0.3, 0.2, 0.1])


def simulated(rng, users, columns, kind):
    """`columns` experiments on users of unequal size -> diffs [n, columns], clusters [n] and the mean they were drawn from."""
    size = rng.choice(SIZES, p=SIZE_SHARES, size=users)
    cluster = np.repeat(np.arange(users), size)
    if kind == "sizes matter":  # users of many slates gain more
        effect = 0.02 * size[:, None] + rng.normal(0, 0.3, (users, columns))
        truth = 0.02 * (SIZE_SHARES @ SIZES**2) / (SIZE_SHARES @ SIZES)
        return effect[cluster] + rng.normal(0, 0.3, (len(cluster), columns)), cluster, truth
    won, lost = rng.beta(0.5, 4, (users, columns)), rng.beta(0.5, 8, (users, columns))  # as differences of R@1: -1, 0 and 1
    draw = rng.random((len(cluster), columns))
    return 1.0 * (draw < 0.8 * won[cluster]) - (draw > 1 - 0.2 * lost[cluster]), cluster, 0.8 * 0.5 / 4.5 - 0.2 * 0.5 / 8.5


def coverage(users, kind, batches=150, columns=40, resamples=600):
    rng = np.random.default_rng(6)
    covered = []
    for batch in range(batches):
        diffs, cluster, truth = simulated(rng, users, columns, kind)
        low, high = paired_intervals(diffs, Bootstrap(cluster, resamples, batch)).T
        covered.append((low <= truth) & (truth <= high))
    return np.mean(covered)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sizes matter", "hit or miss"])
@pytest.mark.parametrize("users", [200, 647])
def test_intervals_hold_the_truth_95_times_in_100(kind, users):
    assert 0.93 <= coverage(users, kind) <= 0.97


def test_an_interval_over_slates_would_be_too_short():
    """Slates of one user share an effect: only an interval over users covers the truth as often as it says."""
    rng = np.random.default_rng(6)
    users, per_user, runs = 120, 5, 200
    cluster = np.repeat(np.arange(users), per_user)
    diffs = 0.2 + rng.normal(size=(users, runs)).repeat(per_user, axis=0) + rng.normal(size=(users * per_user, runs))
    over_users, over_slates = (paired_intervals(diffs, Bootstrap(own, 500, 7)).T for own in (cluster, np.arange(len(cluster))))
    assert np.mean((over_users[0] <= 0.2) & (over_users[1] >= 0.2)) > 0.92
    assert np.mean((over_slates[0] <= 0.2) & (over_slates[1] >= 0.2)) < 0.85


def test_intervals_of_few_users_are_those_of_student():
    """Normal differences of 8 users: the exact interval is Student's, and plain percentiles are a quarter too short."""
    diffs = np.random.default_rng(11).normal(size=(8, 300))
    low, high = paired_intervals(diffs, Bootstrap(np.arange(8), 4000, 12)).T
    student = 2 * scipy.stats.t.ppf(0.975, 7) * diffs.std(axis=0, ddof=1) / np.sqrt(8)
    assert np.mean(high - low) == pytest.approx(student.mean(), rel=0.06)
    assert expanded_tail(647) == pytest.approx(0.025, rel=0.02)


def test_chunks_do_not_change_the_interval(monkeypatch):
    diff, cluster = np.random.default_rng(8).normal(size=(90, 2)), np.repeat(np.arange(30), 3)
    whole = paired_intervals(diff, Bootstrap(cluster, 100, 9))
    monkeypatch.setattr(bootstrap, "_CHUNK", 30 * 7)
    np.testing.assert_allclose(paired_intervals(diff, Bootstrap(cluster, 100, 9)), whole, rtol=0, atol=1e-12)


def test_equal_seeds_give_equal_bits_and_other_seeds_do_not():
    diff, cluster = np.random.default_rng(10).normal(size=50), np.arange(50)
    assert paired_interval(diff, Bootstrap(cluster, 200, 1)) == paired_interval(diff, Bootstrap(cluster, 200, 1))
    assert paired_interval(diff, Bootstrap(cluster, 200, 1)) != paired_interval(diff, Bootstrap(cluster, 200, 2))


def test_a_model_that_copies_scores_exactly_nothing():
    models, users = planted()
    summary = summarise(models, Bootstrap(users, 200, 0))
    for name in ("incoming", "copy"):
        entry = summary["models"][name]
        assert entry["identity_share"] == 1.0
        for metric in ("rank_gain", "promoted", "demoted"):
            assert entry[metric]["mean"] == 0.0
        for metric in METRICS:
            assert entry[metric]["diff"] == 0.0
            assert entry[metric]["diff_ci"] == [0.0, 0.0]


def test_a_planted_gain_is_found_and_its_figures_are_plain_means():
    models, users = planted()
    summary = summarise(models, Bootstrap(users, 500, 0), contrasts=[("rl", "copy"), ("copy", "rl")])
    entry = summary["models"]["rl"]
    rank, before = models["rl"]["rank"], models["incoming"]["rank"]
    assert entry["recall@3"]["mean"] == pytest.approx(np.mean(rank < 3))
    assert entry["recall@3"]["diff"] == pytest.approx(np.mean(rank < 3) - np.mean(before < 3))
    assert entry["rank_gain"]["mean"] == entry["rank_gain"]["diff"] == pytest.approx(np.mean(before - rank))
    assert entry["promoted"]["mean"] == pytest.approx(np.mean(rank < before))
    low, high = entry["ndcg@5"]["diff_ci"]
    assert 0 < low < entry["ndcg@5"]["diff"] < high
    assert entry["valid_share"] == pytest.approx(models["rl"]["valid"].mean())
    assert summary["contrasts"]["rl-copy"] == entry  # a copy of the initial ranking is the initial ranking
    mirrored = summary["contrasts"]["copy-rl"]["ndcg@5"]
    np.testing.assert_allclose(mirrored["diff_ci"], [-high, -low], atol=1e-12)
    assert (summary["slates"], summary["users"], entry["n"]) == (300, 100, 300)


def test_the_shape_others_build_on():
    models, users = planted()
    entry = summarise(models, Bootstrap(users, 10, 0))["models"]["rl"]
    assert set(entry) == {"n", "valid_share", "identity_share", *METRICS} and set(NAMES) <= set(METRICS)
    assert all(set(entry[metric]) == {"mean", "diff", "diff_ci"} and len(entry[metric]["diff_ci"]) == 2 for metric in METRICS)


def test_missed_slates_count_nothing_but_count():
    """Against slates written out: the same users with a slate of zeros for every miss, users without any hit included."""
    models, users = planted()
    missed = {0: 2, 7: 1, 5000: 3, 5001: 0}
    summary = summarise(models, Bootstrap(users, 400, 3), contrasts=[("copy", "rl")], missed=missed)
    assert summary["all_slates"] == {"slates": 306, "users": 101, "hit_rate": 300 / 306}
    rank, before = (models[name]["rank"] for name in ("rl", "incoming"))
    for metric, of in (
        ("recall@3", lambda rank: 1.0 * (rank < 3)),
        ("mrr", lambda rank: 1 / (rank + 1)),
        ("rank_gain", lambda rank: before - rank),
    ):
        whole = summary["models"]["rl"]["all_slates"]
        diff = np.concatenate([of(rank) - of(before), np.zeros(6)])
        assert whole["n"] == 306
        assert whole[metric]["mean"] == pytest.approx(of(rank).sum() / 306)
        assert whole[metric]["diff"] == pytest.approx(diff.mean())
        np.testing.assert_allclose(whole[metric]["diff_ci"], paired_interval(diff, Bootstrap([*users, 0, 0, 7, 5000, 5000, 5000], 400, 3)))
    assert summary["contrasts"]["copy-rl"]["all_slates"]["mrr"]["diff"] == pytest.approx(
        -summary["models"]["rl"]["all_slates"]["mrr"]["diff"]
    )
    assert summary["models"]["rl"]["mrr"] == summarise(models, Bootstrap(users, 400, 3), [("copy", "rl")])["models"]["rl"]["mrr"]


def test_no_misses_are_all_slates():
    models, users = planted()
    entry = summarise(models, Bootstrap(users, 50, 3), missed={})["models"]["rl"]
    assert entry["all_slates"] == {key: entry[key] for key in ("n", *METRICS)}


def test_errors_name_what_is_missing():
    models, users = planted()
    with pytest.raises(StageError, match="no results of 'lambdamart'"):
        summarise(models, Bootstrap(users, 10, 0), contrasts=[("rl", "lambdamart")])
    with pytest.raises(StageError, match="no results of 'incoming'"):
        summarise({"rl": models["rl"]}, Bootstrap(users, 10, 0))
    with pytest.raises(StageError, match="incoming: 300 values of 'rank' for 299 slates"):
        summarise(models, Bootstrap(users[:-1], 10, 0))
    with pytest.raises(StageError, match="no slates"):
        paired_interval(np.array([]), Bootstrap(np.array([]), 10, 0))
    with pytest.raises(StageError, match="all 3 slates are of one user, 8"):
        paired_interval(np.ones(3), Bootstrap(np.full(3, 8), 10, 0))
    with pytest.raises(StageError, match="user 4: -1 missed slates"):
        summarise(models, Bootstrap(users, 10, 0), missed={4: -1})

import numpy as np
import pytest
import scipy.stats

from stages.evaluate import bootstrap
from stages.evaluate.bootstrap import paired_interval, paired_intervals, summarise
from stages.evaluate.metrics import NAMES
from stages.shared.errors import StageError


def planted(n=300, seed=0):
    """Incoming ranks, and a model that lifts two thirds of the targets to the top."""
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
    np.testing.assert_allclose(paired_interval(diff, np.arange(200), 20_000, seed=3), expected, atol=0.008)  # interval length 0.28


def test_unequal_clusters_agree_with_a_loop_over_users():
    rng = np.random.default_rng(4)
    cluster = rng.permutation(np.repeat(np.arange(60), rng.integers(1, 9, 60)))
    diff = rng.normal(size=60)[cluster] + rng.normal(size=len(cluster))
    of_user = [diff[cluster == user] for user in range(60)]
    means = [np.concatenate([of_user[user] for user in rng.integers(0, 60, 60)]).mean() for _ in range(4000)]
    np.testing.assert_allclose(paired_interval(diff, cluster, 8000, seed=5), np.quantile(means, [0.025, 0.975]), atol=0.025)


def test_coverage_over_users_whose_slates_agree():
    """Slates of one user share an effect, so an interval over slates is too short; over users it covers the truth 95 times in 100."""
    rng = np.random.default_rng(6)
    runs, users, per_user = 400, 120, 5
    cluster = np.repeat(np.arange(users), per_user)
    diffs = 0.2 + rng.normal(size=(runs, users)).repeat(per_user, axis=1) + rng.normal(size=(runs, users * per_user))
    covered = np.array([low <= 0.2 <= high for low, high in (paired_interval(diff, cluster, 500, seed=7) for diff in diffs)])
    naive = [paired_interval(diff, np.arange(users * per_user), 500, seed=7) for diff in diffs[:100]]
    assert 0.92 <= covered.mean() <= 0.98
    assert np.mean([low <= 0.2 <= high for low, high in naive]) < 0.85


def test_chunks_do_not_change_the_interval(monkeypatch):
    diff, cluster = np.random.default_rng(8).normal(size=(90, 2)), np.repeat(np.arange(30), 3)
    whole = paired_intervals(diff, cluster, 100, seed=9)
    monkeypatch.setattr(bootstrap, "_CHUNK", 30 * 7)
    np.testing.assert_allclose(paired_intervals(diff, cluster, 100, seed=9), whole, rtol=0, atol=1e-12)


def test_equal_seeds_give_equal_bits_and_other_seeds_do_not():
    diff, cluster = np.random.default_rng(10).normal(size=50), np.arange(50)
    assert paired_interval(diff, cluster, 200, seed=1) == paired_interval(diff, cluster, 200, seed=1)
    assert paired_interval(diff, cluster, 200, seed=1) != paired_interval(diff, cluster, 200, seed=2)


def test_a_model_that_copies_scores_exactly_nothing():
    models, users = planted()
    summary = summarise(models, users, resamples=200, seed=0)
    for name in ("incoming", "copy"):
        entry = summary["models"][name]
        assert entry["identity_share"] == 1.0
        for metric in NAMES:
            assert entry[metric]["diff"] == 0.0
            assert entry[metric]["diff_ci"] == [0.0, 0.0]


def test_a_planted_gain_is_found_and_its_figures_are_plain_means():
    models, users = planted()
    summary = summarise(models, users, resamples=500, seed=0, contrasts=[("rl", "copy"), ("copy", "rl")])
    entry = summary["models"]["rl"]
    rank, before = models["rl"]["rank"], models["incoming"]["rank"]
    assert entry["recall@3"]["mean"] == pytest.approx(np.mean(rank < 3))
    assert entry["recall@3"]["diff"] == pytest.approx(np.mean(rank < 3) - np.mean(before < 3))
    low, high = entry["ndcg@5"]["diff_ci"]
    assert 0 < low < entry["ndcg@5"]["diff"] < high
    assert entry["valid_share"] == pytest.approx(models["rl"]["valid"].mean())
    assert summary["contrasts"]["rl-copy"] == entry  # a copy of the incoming order is the incoming order
    mirrored = summary["contrasts"]["copy-rl"]["ndcg@5"]
    np.testing.assert_allclose(mirrored["diff_ci"], [-high, -low], atol=1e-12)
    assert (summary["slates"], summary["users"], entry["n"]) == (300, 100, 300)


def test_the_shape_others_build_on():
    models, users = planted()
    entry = summarise(models, users, resamples=10, seed=0)["models"]["rl"]
    assert set(entry) == {"n", "valid_share", "identity_share", *NAMES}
    assert all(set(entry[metric]) == {"mean", "diff", "diff_ci"} and len(entry[metric]["diff_ci"]) == 2 for metric in NAMES)


def test_errors_name_what_is_missing():
    models, users = planted()
    with pytest.raises(StageError, match="no results of 'lambdamart'"):
        summarise(models, users, 10, 0, contrasts=[("rl", "lambdamart")])
    with pytest.raises(StageError, match="no results of 'incoming'"):
        summarise({"rl": models["rl"]}, users, 10, 0)
    with pytest.raises(StageError, match="incoming: 300 values of 'rank' for 299 slates"):
        summarise(models, users[:-1], 10, 0)
    with pytest.raises(StageError, match="no slates"):
        paired_interval(np.array([]), np.array([]), 10, 0)

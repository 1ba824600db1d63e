import numpy as np
import pytest

from stages.shared.core.errors import StageError
from stages.shared.stats.bootstrap import Bootstrap, paired_interval
from stages.shared.stats.multi_seed import best_mean_worst_of_n, over_seeds


def test_means_and_spread_over_seeds_are_plain():
    values = np.random.default_rng(0).random((4, 90))
    found = over_seeds(values, Bootstrap(np.repeat(np.arange(30), 3), 300, 1))
    assert found["each"] == pytest.approx(values.mean(axis=1).tolist())
    assert (found["mean"], found["sd"]) == (pytest.approx(values.mean()), pytest.approx(np.std(values.mean(axis=1), ddof=1)))
    assert found["ci"][0] < found["mean"] < found["ci"][1] and found["seeds"] == 4


def test_runs_that_agree_leave_the_interval_over_users():
    own = np.random.default_rng(2).normal(0.1, 1, 600)
    cluster = np.repeat(np.arange(200), 3)
    found = over_seeds(np.stack([own] * 3), Bootstrap(cluster, 4000, 3))
    assert found["sd"] == 0.0
    np.testing.assert_allclose(found["ci"], paired_interval(own, Bootstrap(cluster, 4000, 4)), atol=0.01)  # length 0.16


def test_runs_that_differ_widen_it():
    rng = np.random.default_rng(5)
    own, cluster = rng.normal(0, 0.3, 600), np.repeat(np.arange(200), 3)
    runs = own + np.array([-0.2, 0.0, 0.2])[:, None]
    found = over_seeds(runs, Bootstrap(cluster, 2000, 6))
    student = 4.303 * 0.2 / np.sqrt(3)  # t of two degrees of freedom: next to the seeds the users hardly count
    assert (found["ci"][1] - found["ci"][0]) / 2 == pytest.approx(student, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "of_users", "of_seeds"), [(3, 0.3, 0.0), (3, 0.3, 0.02), (3, 0.1, 0.05), (5, 0.3, 0.03)])
def test_intervals_cover_users_and_seeds(seeds, of_users, of_seeds):
    """Conservative where the noise of single answers counts for much, as Owen proves; never much below 95 in 100."""
    rng = np.random.default_rng(7)
    cluster = np.repeat(np.arange(100), 2)
    covered = []
    for run in range(600):
        values = 0.05 + rng.normal(0, of_seeds, (seeds, 1)) + rng.normal(0, of_users, 100)[cluster] + rng.normal(0, 0.3, (seeds, 200))
        low, high = over_seeds(values, Bootstrap(cluster, 200, run))["ci"]
        covered.append(low <= 0.05 <= high)
    assert 0.93 <= np.mean(covered) <= 0.985


def test_no_spread_at_all():
    assert over_seeds(np.full((2, 4), 0.5), Bootstrap(np.arange(4), 50, 0))["ci"] == [0.5, 0.5]


def test_envelopes_are_the_worst_mean_and_best_answer_of_each_slate():
    rng = np.random.default_rng(8)
    values, baseline, cluster = rng.random((5, 40)), rng.random(40), np.repeat(np.arange(20), 2)
    found = best_mean_worst_of_n(values, baseline, Bootstrap(cluster, 200, 9))
    for kind, pick in (("pessimistic", min), ("mean", lambda own: sum(own) / 5), ("optimistic", max)):
        own = np.array([pick(values[:, slate].tolist()) for slate in range(40)])
        assert found[kind]["mean"] == pytest.approx(own.mean())
        assert found[kind]["diff"] == pytest.approx(own.mean() - baseline.mean())
        np.testing.assert_allclose(found[kind]["diff_ci"], paired_interval(own - baseline, Bootstrap(cluster, 200, 9)), atol=1e-12)
    assert found["repeats"] == 5


def test_one_repeat_is_its_own_envelope():
    found = best_mean_worst_of_n(np.array([[1.0, 0.0, 0.5]]), np.zeros(3), Bootstrap(np.arange(3), 50, 0))
    assert found["pessimistic"] == found["mean"] == found["optimistic"]


def test_errors_say_what_to_do():
    with pytest.raises(StageError, match="train with another seed"):
        over_seeds(np.ones((1, 4)), Bootstrap(np.arange(4), 10, 0))
    with pytest.raises(StageError, match="every run on the same slates"):
        over_seeds(np.ones((2, 4)), Bootstrap(np.arange(5), 10, 0))
    with pytest.raises(StageError, match="repeat every slate equally often"):
        best_mean_worst_of_n(np.ones((2, 4)), np.ones(3), Bootstrap(np.arange(3), 10, 0))

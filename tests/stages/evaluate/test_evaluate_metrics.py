import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from stages.evaluate.metrics import NAMES, ranks_of_targets, slate_metrics
from stages.shared.errors import StageError


def test_ndcg_is_that_of_scikit_learn():
    rank = np.arange(10)
    relevance = np.eye(10)  # slate i: its target is candidate i
    scores = np.tile(-np.arange(10.0), (10, 1))  # candidates stand in order, so the target's rank is i
    expected = [ndcg_score(relevance[i : i + 1], scores[i : i + 1], k=5) for i in range(10)]
    np.testing.assert_allclose(slate_metrics(rank)["ndcg@5"], expected, atol=1e-12)


@given(st.permutations(range(10)), st.integers(0, 9))
def test_every_metric_equals_brute_force(order, target):
    rank = ranks_of_targets(np.array([order]), np.array([target]))
    assert rank[0] == order.index(target)
    got = {name: values[0] for name, values in slate_metrics(rank).items()}
    for k in (1, 3, 5):
        assert got[f"recall@{k}"] == float(target in order[:k])
    assert got["ndcg@5"] == pytest.approx(sum(1 / np.log2(place + 1) for place, item in enumerate(order[:5], 1) if item == target))
    assert got["mrr"] == pytest.approx(1 / (order.index(target) + 1))
    assert tuple(got) == NAMES


def test_the_incoming_order_leaves_ranks_alone():
    target_rank = np.array([3, 0, 9])
    assert ranks_of_targets(np.tile(np.arange(10), (3, 1)), target_rank).tolist() == [3, 0, 9]


def test_a_slate_without_its_target_is_an_error():
    with pytest.raises(StageError, match="slate 1: the target is not among"):
        slate_metrics(np.array([0, -1]))
    with pytest.raises(StageError, match="slate 0: the target is not among"):
        ranks_of_targets(np.array([[0, 1]]), np.array([2]))


def test_an_order_that_repeats_a_candidate_is_an_error():
    with pytest.raises(StageError, match=r"slate 1: \[0, 0\] is not a permutation"):
        ranks_of_targets(np.array([[1, 0], [0, 0]]), np.array([0, 1]))


def test_slates_of_one_candidate():
    assert {name: values.tolist() for name, values in slate_metrics(ranks_of_targets(np.array([[0]]), np.array([0]))).items()} == {
        name: [1.0] for name in NAMES
    }

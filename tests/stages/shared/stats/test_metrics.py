import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from stages.shared.core.errors import StageError
from stages.shared.stats.metrics import (
    METRICS,
    NAMES,
    QUALITY,
    all_metrics,
    graded_metrics,
    movement,
    order_metrics,
    ranks_of_targets,
    slate_metrics,
)


@pytest.mark.parametrize("k", [3, 5, 10])
def test_ndcg_is_that_of_scikit_learn(k):
    rng = np.random.default_rng(k)
    orders = rng.permuted(np.tile(np.arange(12), (60, 1)), axis=1)
    targets = rng.integers(0, 12, 60)
    scores = -np.argsort(orders, axis=1).astype(float)  # a candidate's score falls with its new rank
    expected = [ndcg_score(np.eye(12)[[target]], scores[[i]], k=k) for i, target in enumerate(targets)]
    np.testing.assert_allclose(slate_metrics(ranks_of_targets(orders, targets))[f"ndcg@{k}"], expected, atol=1e-12)


@given(st.permutations(range(12)), st.integers(0, 11))
def test_every_metric_equals_brute_force(order, target):
    rank = ranks_of_targets(np.array([order]), np.array([target]))
    assert rank[0] == order.index(target)
    got = {name: values[0] for name, values in all_metrics(rank, np.array([target])).items()}
    for k in (1, 3, 5, 10):
        assert got[f"recall@{k}"] == float(target in order[:k])
    for k in (3, 5, 10):
        assert got[f"ndcg@{k}"] == pytest.approx(sum(1 / math.log2(place + 1) for place, item in enumerate(order[:k], 1) if item == target))
    assert got["mrr"] == pytest.approx(1 / (order.index(target) + 1))
    passed = sum(order.index(other) > order.index(target) for other in range(target))  # were before the target, are behind it now
    fell_behind = sum(order.index(other) < order.index(target) for other in range(target + 1, 12))
    assert got["rank_gain"] == passed - fell_behind
    assert (got["promoted"], got["demoted"]) == (float(passed > fell_behind), float(passed < fell_behind))
    assert tuple(got) == METRICS and set(NAMES) <= set(QUALITY)


def test_the_incoming_order_leaves_ranks_alone():
    target_rank = np.array([3, 0, 9])
    rank = ranks_of_targets(np.tile(np.arange(10), (3, 1)), target_rank)
    assert rank.tolist() == [3, 0, 9]
    assert all(not values.any() for values in movement(rank, target_rank).values())


def test_a_slate_without_its_target_is_an_error():
    with pytest.raises(StageError, match="slate 1: the target is not among"):
        slate_metrics(np.array([0, -1]))
    with pytest.raises(StageError, match="slate 1: the target is not among"):
        movement(np.array([0, 0]), np.array([0, -1]))
    with pytest.raises(StageError, match="slate 0: the target is not among"):
        ranks_of_targets(np.array([[0, 1]]), np.array([2]))


def test_an_order_that_repeats_a_candidate_is_an_error():
    with pytest.raises(StageError, match=r"slate 1: \[0, 0\] is not a permutation"):
        ranks_of_targets(np.array([[1, 0], [0, 0]]), np.array([0, 1]))


def test_slates_of_one_candidate():
    rank = ranks_of_targets(np.array([[0]]), np.array([0]))
    assert {name: values.tolist() for name, values in slate_metrics(rank).items()} == {name: [1.0] for name in QUALITY}


@pytest.mark.parametrize("k", [3, 5, 10])
def test_graded_ndcg_is_that_of_scikit_learn(k):
    rng = np.random.default_rng(k)
    orders = rng.permuted(np.tile(np.arange(12), (60, 1)), axis=1)
    grades = rng.integers(0, 4, (60, 12)) * (rng.random((60, 12)) < 0.3)
    grades[np.arange(60), rng.integers(0, 12, 60)] = 2
    scores = -np.argsort(orders, axis=1).astype(float)
    expected = [ndcg_score([2.0**own - 1], [scored], k=k) for own, scored in zip(grades, scores, strict=True)]
    np.testing.assert_allclose(graded_metrics(orders, grades)[f"ndcg@{k}"], expected, atol=1e-12)


@given(st.permutations(range(12)), st.lists(st.integers(0, 3), min_size=12, max_size=12).filter(any))
def test_every_graded_metric_equals_brute_force(order, grades):
    got = {name: values[0] for name, values in graded_metrics(np.array([order]), np.array([grades])).items()}
    relevant = {item for item, grade in enumerate(grades) if grade}
    for k in (1, 3, 5, 10):
        assert got[f"recall@{k}"] == pytest.approx(len(relevant & set(order[:k])) / len(relevant))
    assert got["mrr"] == pytest.approx(1 / min(place for place, item in enumerate(order, 1) if item in relevant))
    assert got["rank_gain"] == pytest.approx(sum(item - order.index(item) for item in relevant) / len(relevant))
    assert tuple(got) == METRICS


@given(st.permutations(range(10)), st.integers(0, 9), st.integers(1, 5))
def test_of_one_relevant_candidate_the_grade_changes_nothing(order, target, grade):
    grades = np.zeros((1, 10), dtype=int)
    grades[0, target] = grade
    one = order_metrics(np.array([order]), np.array([target]))
    for name, values in order_metrics(np.array([order]), np.array([target]), grades).items():
        assert values[0] == pytest.approx(one[name][0])


def test_places_behind_the_end_of_a_slate_change_nothing():
    whole = graded_metrics(np.array([[2, 0, 1]]), np.array([[1, 0, 2]]))
    longer = graded_metrics(np.array([[2, 0, 1, 3, 4, 5]]), np.array([[1, 0, 2, 0, 0, 0]]))
    assert {name: values[0] for name, values in whole.items()} == pytest.approx({name: values[0] for name, values in longer.items()})


def test_a_slate_without_a_grade_is_an_error():
    with pytest.raises(StageError, match="slate 1: no candidate has a grade"):
        graded_metrics(np.array([[0, 1], [0, 1]]), np.array([[1, 0], [0, 0]]))

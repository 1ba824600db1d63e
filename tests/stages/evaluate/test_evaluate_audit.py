import numpy as np

from stages.evaluate.audit import audit, commonest_order_share, gain_by_incoming_rank, invalid_by_kind, position_histogram, rank_flow
from stages.evaluate.metrics import ranks_of_targets

COPY = np.tile(np.arange(4), (6, 1))
TARGETS = np.array([0, 1, 2, 3, 3, 3])


def test_a_copying_model_is_found_out():
    result = audit(COPY, TARGETS, ranks_of_targets(COPY, TARGETS), [""] * 6)
    assert result["identity_share"] == 1.0
    assert result["rank_flow"] == np.diag([1, 1, 1, 3]).tolist()
    assert all(row["gain"] == 0 for row in result["by_incoming_rank"])


def test_a_model_that_always_answers_the_same_is_found_out():
    orders = np.tile([2, 0, 3, 1], (6, 1))
    assert commonest_order_share(orders) == 1.0
    histogram = position_histogram(orders)
    assert histogram[2].tolist() == [6, 0, 0, 0]  # the third candidate is always put first
    shuffled = np.random.default_rng(0).permuted(np.tile(np.arange(10), (500, 1)), axis=1)
    assert commonest_order_share(shuffled) < 0.02
    assert position_histogram(shuffled).sum(axis=0).tolist() == [500] * 10


def test_gain_by_incoming_rank_leaves_out_ranks_nobody_came_in_at():
    flow = rank_flow(np.array([3, 3, 1]), np.array([0, 1, 1]), 4)
    assert gain_by_incoming_rank(flow) == [
        {"incoming_rank": 1, "n": 1, "mean_new_rank": 1.0, "gain": 0.0},
        {"incoming_rank": 3, "n": 2, "mean_new_rank": 0.5, "gain": 2.5},
    ]


def test_invalid_outputs_are_counted_by_kind():
    assert invalid_by_kind(["", "no answer", "", "repeats a candidate", "no answer"]) == {"no answer": 0.4, "repeats a candidate": 0.2}
    assert invalid_by_kind(["", ""]) == {}

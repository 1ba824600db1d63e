"""Rewards where several candidates were taken: with one grade they are those of the target, with several they follow graded NDCG."""

from itertools import permutations

import pytest

from stages.rl.params import RlParams
from stages.rl.rewards.group import Rewarder, rank_reward
from stages.rl.rewards.orders import gains_of, graded_promotion, is_best, is_right, ndcg, rises
from stages.shared.slates.answers import Answer
from tests.stages.shared.slates.test_constraint import constraint

K = 4
ORDERS = list(permutations(range(K)))
GRADES = (0, 2, 0, 1)


@pytest.mark.parametrize("target", range(K))
@pytest.mark.parametrize("kind", ["promotion", "ndcg", "auc", "log_sigmoid"])
def test_one_taken_candidate_is_the_target(kind: str, target: int) -> None:
    params, grades = RlParams(rank_reward=kind, invalid_reward=-10.0), tuple(int(rank == target) for rank in range(K))
    for order in ORDERS:
        assert rank_reward(order, target, params, grades) == pytest.approx(rank_reward(order, target, params))
        assert rises(order, target, grades) == rises(order, target)
        assert is_right(order, target, grades) == is_right(order, target)
        assert is_best(order, target, grades) == is_best(order, target)


def test_ndcg_of_several_by_hand() -> None:
    gains = gains_of(K, 1, GRADES)
    assert gains == [0, 3, 0, 1]
    best = 3 + 1 / 1.584962500721156
    assert ndcg((1, 3, 0, 2), gains) == pytest.approx(1) and ndcg((3, 1, 0, 2), gains) == pytest.approx((1 + 3 / 1.584962500721156) / best)
    assert graded_promotion((1, 3, 0, 2), gains) == pytest.approx((3 * 1 + 1 * 2) / 4 / K)


def test_the_best_order_earns_most_and_format_is_paid_where_ndcg_rose() -> None:
    params = RlParams(rank_reward="ndcg", alpha=0.2)

    def earned(order: tuple[int, ...]) -> float:
        return Rewarder(params)(constraint(K), 1, [[1, 2]], [Answer(order, "")], [-1.0], GRADES).total[0]

    totals = {order: earned(order) for order in ORDERS}
    assert {order for order, total in totals.items() if total == pytest.approx(max(totals.values()))} == {(1, 3, 0, 2), (1, 3, 2, 0)}
    before = ndcg(range(K), gains_of(K, 1, GRADES))
    for order, total in totals.items():
        gain = ndcg(order, gains_of(K, 1, GRADES)) - before
        assert total == pytest.approx(gain + (params.alpha if gain > 1e-9 else 0))


def test_a_copy_of_a_best_initial_ranking_passes_the_gate() -> None:
    params = RlParams(reward="gated", rank_reward="ndcg", alpha=0.2)
    copies = [
        Rewarder(params)(constraint(K), 0, [[1]], [Answer((0, 1, 2, 3), "")], [-1.0], grades).total
        for grades in ((2, 1, 0, 0), (1, 2, 0, 0))
    ]
    assert copies == [[pytest.approx(0.2)], [0.2]] and rises((0, 1, 2, 3), 0, (2, 1, 0, 0)) and not rises((0, 1, 2, 3), 0, (1, 2, 0, 0))

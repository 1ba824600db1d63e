"""The combined rewards on every row of a table over rank before, rank after, valid or not; and the parts by themselves."""

import itertools
import math

import pytest
from pydantic import ValidationError

from stages.rl.params import RlParams
from stages.rl.rewards.group import Rewarder
from stages.rl.rewards.negatives import rank_aware_negatives
from stages.rl.rewards.orders import (
    auc,
    auc_gain,
    is_adjacent_swap,
    is_identity,
    is_right,
    log_sigmoid,
    ndcg,
    ndcg_gain,
    promotion,
)
from stages.rl.rewards.tokens import brevity, grounding, overlong
from stages.shared.core.errors import StageError
from stages.shared.slates.answers import Answer
from tests.stages.shared.slates.test_constraint import constraint

K, ALPHA, INVALID = 4, 0.2, -1.0
CONSTRAINT = constraint(K)


def moved(before: int, after: int) -> tuple[int, ...]:
    """The initial ranking with one candidate moved."""
    others = [rank for rank in range(K) if rank != before]
    return (*others[:after], before, *others[after:])


def total(order: tuple[int, ...] | None, target_rank: int, **more) -> float:
    params = RlParams(**{"alpha": ALPHA, "invalid_reward": INVALID, **more})
    answer = Answer(order, "" if order else "missing")
    return Rewarder(params)(CONSTRAINT, target_rank, [[1, 2]], [answer], [-1.0]).total[0]


# reward -> rank before -> what each rank after earns, in quarters of K and alphas: written out, not computed.
A = ALPHA
TABLE = {
    "conditional": [
        [0.0 + A, -0.25 + A, -0.5 + A, -0.75 + A],  # stood first: GR2 pays the format even where it fell
        [0.25 + A, 0.0, -0.25, -0.5],
        [0.5 + A, 0.25 + A, 0.0, -0.25],
        [0.75 + A, 0.5 + A, 0.25 + A, 0.0],
    ],
    "strict": [
        [0.0 + A, -0.25, -0.5, -0.75],  # stood first, and has to stay there
        [0.25 + A, 0.0, -0.25, -0.5],
        [0.5 + A, 0.25 + A, 0.0, -0.25],
        [0.75 + A, 0.5 + A, 0.25 + A, 0.0],
    ],
    "gated": [
        [0.0 + A, -0.25 + A, -0.5 + A, -0.75 + A],
        [0.25 + A, A, -0.25 + A, -0.5 + A],  # the second is the copy: alpha only
        [0.5 + A, 0.25 + A, A, -0.25 + A],
        [0.75 + A, 0.5 + A, 0.25 + A, A],
    ],
}
TABLE["sum"] = TABLE["ungated"] = TABLE["gated"]  # with promotion a copy has R_rank = 0


@pytest.mark.parametrize("reward", TABLE)
def test_every_row_of_rank_before_and_after(reward):
    for before, after in itertools.product(range(K), range(K)):
        assert total(moved(before, after), before, reward=reward) == pytest.approx(TABLE[reward][before][after]), (before, after)
    for before in range(K):
        assert total(None, before, reward=reward) == INVALID


@pytest.mark.parametrize("reward", TABLE)
def test_only_the_targets_rank_counts_in_a_whole_permutation(reward):
    for order in itertools.permutations(range(K)):
        for before in range(K):
            expected = TABLE[reward][before][order.index(before)]
            assert total(order, before, reward=reward) == pytest.approx(expected), (order, before)


def test_a_copy_under_the_gate_earns_alpha_whatever_else_is_paid():
    """Whoever stood first before may be copied for all that an order earns."""
    copy, other = (0, 1, 2, 3), (1, 0, 2, 3)
    quoted = [token for quote in CONSTRAINT.quotes for token in quote] + [CONSTRAINT.layout.think_end]
    for rank_reward in ("promotion", "ndcg", "auc"):
        rewarder = Rewarder(RlParams(alpha=ALPHA, reward="gated", rank_reward=rank_reward, grounding_weight=0.3))
        for order, target, expected in ((copy, 2, ALPHA), (other, 2, ALPHA + 0.3), (copy, 0, ALPHA + 0.3)):
            assert rewarder(CONSTRAINT, target, [quoted], [Answer(order, "")], [-1.0]).total == pytest.approx([expected])


def test_the_log_sigmoid_of_a_gain_is_log_two_below_nothing_for_a_copy():
    sigmoid = {"rank_reward": "log_sigmoid", "invalid_reward": -11.0}
    assert total((0, 1, 2, 3), 2, **sigmoid) == pytest.approx(-math.log(2))
    assert total((0, 1, 2, 3), 0, **sigmoid) == pytest.approx(-math.log(2) + ALPHA)
    gain = 1 - 0.5
    assert total((2, 0, 1, 3), 2, **sigmoid) == pytest.approx(-math.log(1 + math.exp(-gain / 0.1)) + ALPHA)


def test_orders():
    assert promotion((3, 0, 1, 2), 3) == 3 / 4 and promotion((1, 2, 3, 0), 0) == -3 / 4
    gains = [0.0, 2.0, 0.0, 1.0]
    best = 2 + 1 / math.log2(3)
    assert ndcg((1, 3, 0, 2), gains) == 1 and ndcg((0, 1, 2, 3), [0.0] * 4) == 0
    before = (2 / math.log2(3) + 1 / math.log2(5)) / best
    assert ndcg_gain((3, 1, 0, 2), gains) == pytest.approx((1 + 2 / math.log2(3)) / best - before)
    assert log_sigmoid(0.3, 0.1) == pytest.approx(math.log(1 / (1 + math.exp(-3)))) and log_sigmoid(-90.0, 0.1) == pytest.approx(-900)
    assert is_identity((0, 1, 2)) and not is_identity((0, 2, 1))
    assert (
        is_adjacent_swap((0, 2, 1, 3))
        and not is_adjacent_swap((2, 1, 0))
        and not is_adjacent_swap((0, 1))
        and not is_adjacent_swap((2, 0, 1))
    )
    assert is_right((1, 0), 1) and is_right((0, 1), 0) and not is_right((1, 0), 0) and not is_right((0, 1), 1)


def test_auc_of_several_positives_counts_pairs():
    """Gains 2, 0, 1, 0 shown as 2, 3, 0, 1: of five unequal pairs (1,0), (1,2), (1,0), (0,2), (2,0) three stand right."""
    gains = [2.0, 0.0, 1.0, 0.0]
    assert auc((2, 3, 0, 1), gains) == pytest.approx(3 / 5)
    # In the initial ranking 2 0 1 0 only (0, 1) stands wrong.
    assert auc_gain((2, 3, 0, 1), gains) == pytest.approx(3 / 5 - 4 / 5) and auc((0, 1), [1.0, 1.0]) == 0.5
    for order in itertools.permutations(range(K)):
        assert auc_gain(order, [0.0, 0.0, 0.0, 1.0]) == pytest.approx(promotion(order, 3) * K / (K - 1)), "of one positive: the promotion"
    assert total((3, 0, 1, 2), 3, rank_reward="auc") == pytest.approx(1 + ALPHA)


def test_the_likeliest_misses_cost_most_and_only_beside_a_hit():
    """In order of likelihood: the first answer, the hit, the second, the last; they weigh 1, 1 / log2(3), 1 / 2 and 1 / log2(5)."""
    parts = [1.0, 1 / math.log2(3), 0.5, 1 / math.log2(5)]
    whole = sum(parts)
    assert whole == pytest.approx(2.5616, abs=1e-4)
    expected = [-parts[0] / whole, -parts[2] / whole, 0.0, -parts[3] / whole]
    assert rank_aware_negatives([False, False, True, False], [-1.0, -3.0, -2.0, -9.0]) == pytest.approx(expected)
    assert expected[:2] == pytest.approx([-0.3904, -0.1952], abs=1e-4)
    assert rank_aware_negatives([False] * 3, [-1.0, -3.0, -2.0]) == [0.0] * 3


def test_misses_are_punished_whatever_the_combination():
    first, lifted, invalid = Answer((2, 0, 1, 3), ""), Answer((0, 2, 1, 3), ""), Answer(None, "missing")
    ids, logprobs = [[1]] * 3, [-2.0, -1.0, -3.0]
    whole = 1 + 1 / math.log2(3) + 0.5
    for reward in ("conditional", "strict", "gated", "sum"):
        rewarder = Rewarder(RlParams(alpha=ALPHA, reward=reward, negatives_weight=0.5))
        earned = rewarder(CONSTRAINT, 2, ids, [first, lifted, invalid], logprobs)
        assert earned.total == pytest.approx([0.5 + ALPHA, 0.25 + ALPHA - 0.5 / whole, INVALID - 0.5 * 0.5 / whole])
        assert rewarder(CONSTRAINT, 2, ids, [lifted] * 3, logprobs).parts["negatives"] == [0.0] * 3


def test_tokens():
    quotes = [[5, 6], [7, 8], [6, 7]]
    assert grounding([5, 6, 0, 7, 8, 99, 6, 7], quotes, 99) == pytest.approx(2 / 3), "what stands behind the block does not count"
    assert grounding([5, 6, 7, 8], quotes, 99) == 0
    assert [overlong(length, 100, 20) for length in (1, 80, 90, 100)] == [0, 0, -0.5, -1]
    assert brevity(25, 100) == 0.75


def test_length_is_paid_in_groups_that_are_all_right_alone():
    rewarder = Rewarder(RlParams(alpha=0.0, length_weight=0.5, max_tokens=100))
    right, wrong, invalid = Answer((2, 0, 1, 3), ""), Answer((0, 1, 2, 3), ""), Answer(None, "missing")
    ids = [[1] * 10, [1] * 50]
    assert rewarder(CONSTRAINT, 2, ids, [right, right], [-1.0] * 2).total == pytest.approx([0.5 + 0.45, 0.5 + 0.25])
    for other in (wrong, invalid):
        assert rewarder(CONSTRAINT, 2, ids, [right, other], [-1.0] * 2).parts["length"] == [0.0, 0.0]


def test_grounding_is_paid_on_merit_under_the_condition_and_always_under_sum():
    quoted = [token for quote in CONSTRAINT.quotes for token in quote] + [CONSTRAINT.layout.think_end]
    for reward, order, expected in (
        ("conditional", (2, 0, 1, 3), 0.5 + ALPHA + 0.3),
        ("conditional", (0, 1, 2, 3), 0.0),
        ("sum", (0, 1, 2, 3), ALPHA + 0.3),
        ("sum", None, INVALID + 0.3),
    ):
        rewarder = Rewarder(RlParams(alpha=ALPHA, reward=reward, grounding_weight=0.3))
        earned = rewarder(CONSTRAINT, 2, [quoted], [Answer(order, "" if order else "missing")], [-1.0])
        assert earned.parts["grounding"] == [1.0] and earned.total == pytest.approx([expected])


def test_a_layout_without_quotes_cannot_be_grounded():
    with pytest.raises(StageError, match=r"rl\.grounding_weight"):
        Rewarder(RlParams(grounding_weight=0.1))(constraint(K, reasoning=False), 0, [[1]], [Answer((0, 1, 2, 3), "")], [-1.0])


def test_the_random_reward_knows_nothing_of_the_answer_and_goes_on_where_it_was():
    first, second = (Rewarder(RlParams(reward="random", seed=3)) for _ in range(2))
    one, other = [Answer((0, 1, 2, 3), "")] * 3, [Answer(None, "missing")] * 3
    drawn = first(CONSTRAINT, 0, [[1]] * 3, one, [-1.0] * 3).total
    assert drawn == second(CONSTRAINT, 2, [[1, 2]] * 3, other, [-1.0] * 3).total and len(set(drawn)) == 3
    state = first.state()
    following = first(CONSTRAINT, 0, [[1]] * 3, one, [-1.0] * 3).total
    third = Rewarder(RlParams(reward="random", seed=3))
    third.load_state(state)
    assert third(CONSTRAINT, 0, [[1]] * 3, one, [-1.0] * 3).total == following


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"reward": "random", "grounding_weight": 0.1}, "grounding_weight"),
        ({"reward": "random", "negatives_weight": 0.1}, "negatives_weight"),
        ({"reward": "random", "overlong": "soft"}, "overlong"),
        ({"reward": "gdpo", "alpha": 0.0}, "gdpo"),
        ({"reward": "gdpo", "objective": "lite_ppo"}, "gdpo"),
        ({"reward": "gdpo", "objective": "disco"}, "gdpo"),
        ({"objective": "lipo", "importance_cap": 2.0}, "importance_cap"),
        ({"objective": "disco", "kl": 0.1}, "disco_delta"),
        ({"objective": "disco", "overlong": "filter"}, "leaves some out"),
        ({"objective": "lipo", "overlong": "filter"}, "leaves some out"),
        ({"lora": {"rank": 4, "dropout": 0.1}}, "must be one policy"),
        ({"objective": "disco", "reward": "random"}, "disco"),
        ({"reward": "gated", "rank_reward": "log_sigmoid", "invalid_reward": -11.0}, "copying would be best"),
        ({"rank_reward": "log_sigmoid"}, r"worst order earns -10\.0"),
        ({"cov_low": 6.0}, "cov_high"),
        ({"overlong": "soft", "max_tokens": 32}, "overlong_buffer"),
    ],
)
def test_what_contradicts_itself_is_refused(values, names):
    with pytest.raises(ValidationError, match=names):
        RlParams(**values)

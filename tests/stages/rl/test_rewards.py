import pytest

from stages.rl.params import RlParams
from stages.rl.rewards import conditional_reward, rank_reward, ungated_reward
from stages.rl.rl import choose_reward, is_identity
from stages.shared.slates.answers import Answer

ALPHA, INVALID, K = 0.2, -1.0, 4


@pytest.mark.parametrize(
    ("order", "target_rank", "conditional", "ungated"),
    [
        ((2, 0, 1, 3), 2, 0.5 + ALPHA, 0.5 + ALPHA),  # improved from third to first
        ((0, 2, 1, 3), 2, 0.25 + ALPHA, 0.25 + ALPHA),  # improved by one
        ((0, 3, 2, 1), 0, 0.0 + ALPHA, 0.0 + ALPHA),  # stood first and was kept there
        ((1, 0, 2, 3), 0, -0.25 + ALPHA, -0.25 + ALPHA),  # stood first, so GR2 pays the format even where it fell
        ((0, 1, 2, 3), 2, 0.0, 0.0 + ALPHA),  # a copy of the initial ranking earns nothing
        ((3, 1, 2, 0), 2, 0.0, 0.0 + ALPHA),  # others moved, the target did not
        ((0, 2, 3, 1), 1, -0.5, -0.5 + ALPHA),  # demoted
    ],
)
def test_rewards_of_a_permutation(order, target_rank, conditional, ungated):
    answer = Answer(order, "")
    assert conditional_reward(answer, target_rank, K, ALPHA, INVALID) == pytest.approx(conditional)
    assert ungated_reward(answer, target_rank, K, ALPHA, INVALID) == pytest.approx(ungated)


@pytest.mark.parametrize("fault", ["unfinished", "malformed", "outside", "duplicate", "missing"])
def test_no_permutation_earns_the_penalty_wherever_the_target_stood(fault):
    for target_rank in range(K):
        assert conditional_reward(Answer(None, fault), target_rank, K, ALPHA, INVALID) == INVALID
        assert ungated_reward(Answer(None, fault), target_rank, K, ALPHA, INVALID) == INVALID


def test_rank_reward_spans_what_a_slate_allows():
    assert rank_reward(Answer((3, 0, 1, 2), ""), 3, K) == 3 / 4
    assert rank_reward(Answer((1, 2, 3, 0), ""), 0, K) == -3 / 4


def test_the_parameter_chooses_the_reward():
    copy, invalid = Answer((0, 1, 2, 3), ""), Answer(None, "missing")
    by_name = {name: choose_reward(RlParams(reward=name, alpha=0.3, invalid_reward=-0.5)) for name in ("conditional", "ungated")}
    assert by_name["conditional"](copy, 2, K) == 0.0 and by_name["ungated"](copy, 2, K) == pytest.approx(0.3)
    assert by_name["conditional"](invalid, 2, K) == by_name["ungated"](invalid, 2, K) == -0.5


def test_the_random_reward_knows_nothing_of_the_answer_and_repeats_by_seed():
    first, second = (choose_reward(RlParams(reward="random", seed=3)) for _ in range(2))
    drawn = [first(Answer((0, 1), ""), 0, 2) for _ in range(5)]
    assert drawn == [second(Answer(None, "missing"), 1, 2) for _ in range(5)]
    assert len(set(drawn)) == 5 and all(0 <= value < 1 for value in drawn)


def test_identity():
    assert is_identity(Answer((0, 1, 2), "")) and not is_identity(Answer((0, 2, 1), "")) and not is_identity(Answer(None, "missing"))

"""D3S, PROF and Knapsack against brute force and cases counted by hand; DUMP's probabilities."""

import itertools
import math
from statistics import pvariance

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.rl.allocation.d3s import share_at, telling_tokens, tokens_kept, widest
from stages.rl.allocation.dump import Curriculum, mean_advantage, probabilities
from stages.rl.allocation.knapsack import SuccessRates, budgets, value
from stages.rl.allocation.params import AllocationSection
from stages.rl.allocation.prof import consistent
from stages.rl.params import RlParams
from stages.rl.rollouts import Group, Task
from stages.shared.core.errors import StageError
from tests.stages.shared.slates.test_constraint import constraint

CONSTRAINT = constraint(3, "sids")


def test_d3s_keeps_both_ends():
    assert widest([0.1, -1.0, 0.9, 0.0, -0.2, 1.0], 3, "abcdef") == [1, 2, 5], "two from above, as they are further from the one below"
    assert widest([0.1, -1.0, 0.9, 0.0, -0.2, 1.0], 2, "abcdef") == [1, 5]


def test_d3s_takes_answers_that_differ_where_advantages_are_equal():
    assert widest([1.0, 1.0, 1.0, -1.0, -1.0, -1.0], 4, "aabccd") == [0, 2, 3, 5]
    assert widest([1.0, 1.0, 1.0, -1.0, -1.0, -1.0], 4, "aaacccc"[:6]) == [0, 1, 3, 4], "and the first where they do not"


@given(st.lists(st.sampled_from([-1.5, -0.5, 0.0, 0.25, 1.0, 2.0]), min_size=2, max_size=7), st.data())
def test_d3s_is_the_best_of_all_subsets(values, data):
    keep = data.draw(st.integers(1, len(values)))
    chosen = widest(values, keep, range(len(values)))
    assert len(set(chosen)) == keep and chosen == sorted(chosen)
    best = max(pvariance(subset) for subset in itertools.combinations(values, keep))
    assert pvariance([values[place] for place in chosen]) == pytest.approx(best, abs=1e-9)


@given(st.data())
def test_the_tokens_kept_are_those_of_the_greatest_advantage_times_entropy(data):
    lengths = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any))
    few = st.sampled_from([0.0, 0.25, 0.5, 1.0])
    entropy = [data.draw(st.lists(few, min_size=length, max_size=length)) for length in lengths]
    advantages = data.draw(st.lists(st.sampled_from([-2.0, -0.5, 0.0, 1.0]), min_size=len(lengths), max_size=len(lengths)))
    keep = data.draw(st.integers(0, sum(lengths)))
    mask = torch.zeros(len(lengths), max(lengths))
    entropies = torch.full(mask.shape, 9.0)  # beyond an answer's end, where nothing may be taken
    for row, own in enumerate(entropy):
        mask[row, : len(own)], entropies[row, : len(own)] = 1.0, torch.tensor(own)
    tokens = [(row, place) for row, length in enumerate(lengths) for place in range(length)]
    best = sorted(tokens, key=lambda token: -abs(advantages[token[0]]) * entropy[token[0]][token[1]])[:keep]  # a stable sort
    chosen = telling_tokens(torch.tensor(advantages), entropies, mask, keep)
    assert [tuple(place) for place in chosen.nonzero().tolist()] == sorted(best)


def test_of_few_tokens_one_is_kept():
    assert [tokens_kept(count, 0.3) for count in (0, 1, 10, 11)] == [0, 1, 3, 4] and tokens_kept(7, 1.0) == 7


def test_d3s_relaxes_evenly():
    assert [share_at(step, 0.5, 4) for step in (0, 1, 2, 4, 9)] == [0.5, 0.625, 0.75, 1.0, 1.0]
    assert share_at(9, 0.5, 0) == 0.5


def test_prof_drops_what_contradicts_the_outcome_and_balances():
    right = [True, True, True, True, True, False, False, False]
    process = [0.9, 0.2, 1.0, 0.5, 0.8, 0.3, 1.0, 0.1]
    assert consistent(right, process, 4) == [0, 2, 5, 7], "the best grounded right ones, the worst grounded wrong ones"
    assert consistent(right, process, 5) == [0, 2, 5, 6, 7]
    assert consistent(right, process, 7) == [0, 2, 3, 4, 5, 6, 7]
    assert consistent([False] * 3 + [True], [0.5, 0.1, 0.2, 0.0], 3) == [1, 2, 3]
    assert consistent([True] * 4, [0.5, 0.5, 0.1, 0.5], 2) == [0, 1], "one kind alone: by the process, of equals the first"


@given(st.lists(st.booleans(), min_size=2, max_size=9), st.data())
def test_prof_keeps_as_many_as_it_is_told_as_evenly_as_it_can(right, data):
    keep = data.draw(st.integers(1, len(right)))
    chosen = consistent(right, [0.5] * len(right), keep)
    rights = sum(right[place] for place in chosen)
    assert len(set(chosen)) == keep
    possible = [count for count in range(keep + 1) if count <= sum(right) and keep - count <= len(right) - sum(right)]
    assert abs(2 * rights - keep) == min(abs(2 * count - keep) for count in possible)


def test_what_answers_are_worth():
    """p = 1/2, N = 2: they differ in half of the cases; p (1 - p)^2 = 1/8."""
    assert value(2, 0.5) == pytest.approx(0.5 / 8) and value(3, 0.5) == pytest.approx(0.75 / 8)
    assert value(1, 0.3) == pytest.approx(0) and value(4, 0.9) == pytest.approx((1 - 0.9**4 - 0.1**4) * 0.9 * 0.01)


def test_budgets_go_where_something_can_be_learnt():
    counts = budgets([0.99, 0.5, 0.1, 0.01], 16, 2, 8)
    assert sum(counts) == 16 and counts[0] == 2 and counts[2] > counts[1] > counts[0], "a rare success needs more tries than an even one"
    assert budgets([0.3, 0.3, 0.3], 12, 2, 8) == [4, 4, 4] and budgets([0.3, 0.3], 7, 2, 8) == [4, 3]
    assert budgets([0.3, 0.001], 10, 2, 8) == [8, 2]


@given(st.lists(st.floats(0.02, 0.98), min_size=2, max_size=3), st.integers(3, 5))
def test_budgets_are_the_best_of_all(rates, group):
    total, most = group * len(rates), 7
    counts = budgets(rates, total, 2, most)
    ways = [way for way in itertools.product(range(2, most + 1), repeat=len(rates)) if sum(way) == total]
    assert tuple(counts) in ways

    def worth(way) -> float:
        return sum(value(count, rate) for count, rate in zip(way, rates, strict=True))

    assert worth(counts) == pytest.approx(max(map(worth, ways)), abs=1e-12)


def test_a_slate_nobody_answered_is_as_likely_as_its_like():
    rates = SuccessRates()
    assert rates.rate(7, 2) == 0.5
    rates.see(7, 2, right=1, answers=8)
    assert rates.rate(9, 2) == pytest.approx(2 / 10) and rates.rate(9, 3) == 0.5
    assert rates.rate(7, 2) == pytest.approx((1 + 4 * 0.2) / 12)
    rates.see(7, 2, right=8, answers=8)
    assert rates.rate(7, 2) == pytest.approx((8 + 4 * 10 / 18) / 12), "its last visit; the like of it: all"
    other = SuccessRates()
    other.load_state(rates.state())
    assert other.rate(7, 2) == rates.rate(7, 2)


def test_the_advantage_of_a_group():
    assert mean_advantage([1.0, 0.0, 0.0, 1.0]) == pytest.approx(0.5 / (math.sqrt(1 / 3) + 1e-4)) and mean_advantage([0.3] * 4) == 0


def test_probabilities_of_strata():
    """n = (3, 0): bonuses sqrt(2 ln 4 / 4) and sqrt(2 ln 4 / 1)."""
    low, high = math.sqrt(2 * math.log(4) / 4), math.sqrt(2 * math.log(4))
    expected = 1 / (1 + math.exp((high - (0.8 + low)) / 0.5))
    assert probabilities([0.8, 0.0], [3, 0], 0.5).tolist() == pytest.approx([expected, 1 - expected])
    assert probabilities([0.0] * 4, [0] * 4, 0.1).tolist() == [0.25] * 4


def curriculum(**more) -> Curriculum:
    tasks = [Task([number], CONSTRAINT, number % 3, (0, 1, 2), number) for number in range(12)]
    return Curriculum(tasks, RlParams(seed=4, allocation={"dump": True, **more}))


def test_places_that_teach_are_drawn_more_often_and_all_stay_in_reach():
    stream = curriculum()
    drawn = [0, 0, 0]
    for _ in range(200):
        task = next(stream)
        drawn[task.target_rank] += 1
        stream.see([Group(task, [], [], [1.0, 0.0, 0.0, 1.0] if task.target_rank == 1 else [0.5] * 4)])
    assert drawn[1] > 120 and min(drawn) > 5


def test_a_saved_curriculum_goes_on_where_it_was():
    first, second = curriculum(dump_window=2), curriculum(dump_window=2)

    def following(stream, count) -> list[int]:
        found = []
        for _ in range(count):
            task = next(stream)
            found.append(task.slate)
            stream.see([Group(task, [], [], [float(task.slate % 2), 0.0, 1.0])])
        return found

    following(first, 9)
    second.load_state(first.state())
    assert following(first, 20) == following(second, 20)


def test_one_place_alone_leaves_no_choice():
    with pytest.raises(StageError, match=r"rl\.allocation\.dump: all 2 training slates have their target at place 2"):
        Curriculum([Task([number], CONSTRAINT, 1, (0, 1, 2)) for number in range(2)], RlParams())


@pytest.mark.parametrize(
    ("allocation", "more", "names"),
    [
        ({"d3s_share": 0.1}, {}, "d3s_share 0.1 leave 1 of 8 answers"),
        ({"d3s_share": 0.5, "prof_share": 0.4}, {"group": 6}, "leave 1 of 6 answers"),
        ({"d3s_share": 0.5, "knapsack_most": 16}, {}, "leave 1 of 2 answers"),
        ({"d3s_across": True}, {}, "d3s_share: 1.0 keeps all"),
        ({"d3s_relax": 5}, {}, "d3s_share and d3s_tokens are 1.0"),
        ({"d3s_tokens": 0.5}, {"objective": "gspo"}, "objective: gspo scores an answer by all its tokens"),
        ({"d3s_tokens": 0.5}, {"objective": "lipo"}, "objective: lipo scores an answer by all its tokens"),
        ({"knapsack_most": 8}, {}, "both sides of group 8"),
        ({"knapsack_most": 16, "knapsack_least": 9}, {}, "both sides of group 8"),
        ({"d3s_share": 0.5}, {"objective": "lipo"}, "objective: lipo"),
        ({"knapsack_most": 16}, {"objective": "disco"}, "objective: disco"),
        ({"prof_share": 0.5}, {"reward": "random"}, "prof_share"),
        ({"relift_batch": 4}, {"reward": "random"}, "relift_batch"),
    ],
)
def test_what_contradicts_itself_is_refused(allocation, more, names):
    with pytest.raises(ValidationError, match=names):
        RlParams(**{"group": 8, "allocation": allocation, **more})


def test_nothing_is_on_by_default():
    assert not AllocationSection().changes_groups and not AllocationSection().dump and not AllocationSection().relift_batch

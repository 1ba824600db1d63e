"""What each relevance did for the order, against sums over all pairs of answers written out here."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.rl.credit import relevance_credit, token_advantages
from stages.rl.objectives.advantages import centred, group_normalised
from stages.rl.params import RlParams
from stages.rl.rewards.group import Rewarder
from stages.rl.rollouts import Group, Task, score
from stages.shared.generation.base import Completion
from stages.shared.slates.layouts.marks import END, THINK_END
from tests.stages.shared.slates.test_constraint import TOKENIZER, constraint, encoded

CONSTRAINT = constraint(3)
LEVELS, LETTERS = CONSTRAINT.layout.relevances, CONSTRAINT.layout.letters
PARAMS = RlParams(credit="candidate", group=3, alpha=0.2)
WORD = LETTERS[0]  # in a trace, any token that is no relevance


def answered(relevances, order) -> Completion:
    """Each relevance behind a word; an answer of letters."""
    close, end = (TOKENIZER.encode(mark, add_special_tokens=False) for mark in (THINK_END, END))
    thought = [token for level in relevances for token in (WORD, LEVELS[level])]
    ids = [*thought, *close, *(LETTERS[place] for place in order), *end]
    return Completion(ids, [-0.5] * len(ids))


def group_of(*answers, target=2, shown=(0, 1, 2), params=PARAMS) -> Group:
    task = Task([0], CONSTRAINT, target, shown)
    [group] = score([task], [[answered(*one) for one in answers]], encoded().reader, Rewarder(params), consistent=True)
    return group


def place_of_last(levels) -> float:
    """The reward of the tests below: minus the candidates ranked above the third of three, ties as shown."""
    return -float(sum(level >= levels[2] for level in levels[:2]))


def test_two_answers_by_hand():
    # The third candidate at 5 stands first beside 1 and 4, second beside 6 and 2; at 3 second beside both.
    credit = relevance_credit(np.array([[1, 4, 5], [6, 2, 3]]), place_of_last)
    assert credit[:, 2].tolist() == pytest.approx([0.25, -0.25])
    # The first at 1 is below the third in both, at 6 above in both.
    assert credit[:, 0].tolist() == pytest.approx([0.5, -0.5])
    # The second at 4 is above the third of the second answer alone, at 2 of none.
    assert credit[:, 1].tolist() == pytest.approx([-0.25, 0.25])


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), min_size=2, max_size=5))
def test_any_answers_against_the_written_out_means(levels):
    levels_GK = np.array(levels)
    credit_GK = relevance_credit(levels_GK, place_of_last)
    count = len(levels)
    for one, candidate in itertools.product(range(count), range(3)):
        worth = []
        for source in range(count):
            total = 0.0
            for other in range(count):
                changed = [*levels[other]]
                changed[candidate] = levels[source][candidate]
                total += place_of_last(changed)
            worth.append(total / count)
        assert credit_GK[one, candidate] == pytest.approx(worth[one] - sum(worth) / count)
    assert credit_GK.sum(axis=0) == pytest.approx(0)
    same = [len(set(column)) == 1 for column in zip(*levels, strict=True)]
    assert not credit_GK[:, same].any(), "a relevance that never differs did nothing"


def test_relevances_get_their_own_and_all_else_what_validity_is_worth():
    group = group_of(((3, 1, 2), (0, 2, 1)), ((1, 1, 2), (2, 0, 1)), ((3, 3, 1), (2, 0, 1)))  # the last goes against its relevances
    assert [answer.fault for answer in group.answers] == ["", "", "contradicts"]
    rows = token_advantages(group, PARAMS, group_normalised, 0.0)
    mean = (1 / 3 + 0.2 + 2 / 3 + 0.2) / 2
    others = group_normalised(torch.tensor([[mean, mean, -1.0]]))[0].tolist()
    places = [1, 3, 5]
    for row, value in zip(rows, others, strict=True):
        assert np.delete(row.numpy(), places).tolist() == pytest.approx([value] * (len(row) - 3))
    assert rows[2][places].tolist() == pytest.approx([others[2]] * 3), "no order, so its relevances are as wrong as all else"
    # Of the first candidate: at 3 the target rises one place in both answers, at 1 two places in both.
    std = torch.tensor(group.rewards).std().item() + 1e-4
    assert rows[0][places].tolist() == pytest.approx([-(1 / 3) / 2 / std, 0, 0], abs=1e-6)
    assert rows[1][places].tolist() == pytest.approx([+(1 / 3) / 2 / std, 0, 0], abs=1e-6)
    plain = token_advantages(group, PARAMS.model_copy(update={"objective": "dr_grpo"}), centred, 0.0)
    assert plain[0][places].tolist() == pytest.approx([-(1 / 3) / 2, 0, 0], abs=1e-6)


def test_relevances_are_of_the_candidates_as_shown():
    """The first candidate shown is the target here: its own relevance is what moves it."""
    group = group_of(((3, 1, 2), (0, 2, 1)), ((0, 1, 2), (2, 1, 0)), target=2, shown=(2, 0, 1))
    rows = token_advantages(group, PARAMS, group_normalised, 0.0)
    assert rows[0][1] > 0 > rows[1][1] and rows[0][[3, 5]].tolist() == [0, 0]


def test_without_two_orders_nothing_is_compared():
    group = group_of(((3, 1, 2), (0, 2, 1)), ((3, 3, 1), (2, 0, 1)))
    rows = token_advantages(group, PARAMS, group_normalised, 0.0)
    assert all(len(set(row.tolist())) == 1 for row in rows)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"objective": "gspo"}, "credit: candidate is of tokens"),
        ({"reward": "random"}, "which reward: random does not say"),
        ({"allocation": {"d3s_share": 0.5}}, "allocation.d3s_share to 1.0"),
    ],
)
def test_what_it_does_not_go_with(more, said):
    with pytest.raises(ValueError, match=said):
        RlParams(credit="candidate", **more)

"""Credit for relevances: exact worths, and a gradient that is the one of the expected reward."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.rl.credit import credits_of, first_wrong, judged, relevance_loss, worth_of_levels
from stages.rl.distribution import Drawn
from stages.rl.logprobs import response_logprobs
from stages.rl.params import RlParams
from stages.rl.policy import open_policy
from stages.rl.rewards.group import Rewarder
from stages.rl.rl import require_quotes
from stages.rl.rollouts import Group, Rollouts, Task, score, teaches
from stages.rl.update import update
from stages.shared.core.errors import StageError
from stages.shared.generation.base import Completion
from stages.shared.slates.constraint import PermutationConstraint
from stages.shared.slates.layouts.marks import END, THINK_END
from tests.stages.shared.slates.test_constraint import TOKENIZER, constraint, encoded
from tests.support.tiny_models import tiny_model

WHOLE = constraint(3, enforced=False)
LETTERS, LEVELS = WHOLE.layout.letters, WHOLE.layout.relevances
THREE_LEVELS = replace(WHOLE, layout=replace(WHOLE.layout, relevances=LEVELS[:3]))
PARAMS = RlParams(credit="relevance", group=3, alpha=0.2, validity_weight=1.0)
PLACES = [1, 3, 5]  # of the relevances in an answer below


def answered(levels, order, logprobs=()) -> Completion:
    """Each relevance behind a letter, then an answer of letters."""
    close, end = (TOKENIZER.encode(mark, add_special_tokens=False) for mark in (THINK_END, END))
    thought = [token for place, level in enumerate(levels) for token in (LETTERS[place], LEVELS[level])]
    ids = [*thought, *close, *(LETTERS[place] for place in order), *end]
    return Completion(ids, list(logprobs) or [-0.5] * len(ids))


def group_of(*completions, target=2, shown=(0, 1, 2), rule: PermutationConstraint = WHOLE, params=PARAMS, grades=()) -> Group:
    task = Task([5, 6, 7], rule, target, shown, grades=grades)
    [group] = score([task], [completions], encoded().reader, Rewarder(params), consistent=True)
    return group


def test_worth_of_levels_by_hand():
    """The third of three is the target, 2 places up are worth 2/3, and each rise .2 more; ties keep the order shown."""
    task = Task([0], THREE_LEVELS, 2, (0, 1, 2))
    worth_KL = worth_of_levels(np.array([2, 0, 1]), task, PARAMS)
    second, first = 1 / 3 + 0.2, 2 / 3 + 0.2
    assert worth_KL.tolist() == pytest.approx(
        np.array(
            [
                [first, second, second],  # the first candidate at 0 stands behind the target, at 1 and 2 before it
                [second, 0, 0],  # the second at 1 stands before the target, which is third then
                [0, second, second],  # the target at 0 is behind both; at 2 level with the first, which is shown before it
            ]
        )
    )


def test_worths_are_of_the_candidates_as_shown():
    """The target, third in the initial ranking, is shown first here."""
    task = Task([0], THREE_LEVELS, 2, (2, 0, 1))
    worth_KL = worth_of_levels(np.array([0, 1, 2]), task, PARAMS)
    assert worth_KL[0].tolist() == pytest.approx([0, 1 / 3 + 0.2, 2 / 3 + 0.2])


@pytest.mark.parametrize("more", [{}, {"rank_reward": "ndcg"}, {"rank_reward": "auc", "reward": "gated"}])
def test_the_gradient_is_that_of_the_expected_reward(more):
    """Over all 27 draws of three relevances: their mean of the loss's gradient against the gradient of the expected reward."""
    params = PARAMS.model_copy(update=more)
    logits_KL = torch.randn(3, 3, generator=torch.Generator().manual_seed(3), requires_grad=True)
    grades = (0, 2, 1) if more else ()
    chances_KL = torch.softmax(logits_KL, -1)
    mean_KL, expected = torch.zeros(3, 3), torch.zeros(())
    for levels in itertools.product(range(3), repeat=3):
        order = sorted(range(3), key=lambda place: -levels[place])
        group = group_of(answered(levels, order), answered(levels, order), rule=THREE_LEVELS, params=params, grades=grades)
        chance = torch.stack([chances_KL[place, level] for place, level in enumerate(levels)]).prod()
        expected = expected + chance * group.rewards[0]
        [credit, _] = credits_of(group, params, 1.0 - 1e-4)
        beside_TL = torch.zeros(len(group.completions[0].token_ids), 3).index_put((torch.tensor(PLACES),), torch.log(chances_KL))
        [gradient] = torch.autograd.grad(relevance_loss(beside_TL[None], [credit]), logits_KL, retain_graph=True)
        mean_KL += chance.detach() * gradient
    [wanted_KL] = torch.autograd.grad(expected, logits_KL)
    assert wanted_KL.abs().max() > 0.01 and torch.allclose(mean_KL, -wanted_KL, atol=1e-6)


def test_answers_get_what_validity_is_worth():
    """The third goes against its relevances, the last never ends its trace."""
    endless = Completion([LETTERS[0], LEVELS[3]] * 4, [-0.5] * 8)
    group = group_of(answered((3, 1, 2), (0, 2, 1)), answered((1, 1, 2), (2, 0, 1)), answered((3, 3, 1), (2, 0, 1)), endless)
    assert [answer.fault for answer in group.answers] == ["", "", "contradicts", "unfinished"]
    credits = credits_of(group, PARAMS, 0.5)
    mean = (1 / 3 + 0.2 + 2 / 3 + 0.2) / 2
    wanted = (np.array([mean, mean, -1.0, -1.0]) - (2 * mean - 2.0) / 4) / 0.5001
    thought = 2 * 3 + len(TOKENIZER.encode(THINK_END, add_special_tokens=False))
    for credit, value in zip(credits[:2], wanted, strict=False):
        assert not credit.others_T[:thought].any()
        assert credit.others_T[thought:].tolist() == pytest.approx([value] * (len(credit.others_T) - thought))
    # C stands first, of the lowest relevance: that token is the wrong one.
    assert credits[2].others_T.tolist() == pytest.approx([0.0] * thought + [wanted[2]] + [0.0] * (len(credits[2].others_T) - thought - 1))
    assert credits[3].others_T.tolist() == pytest.approx([wanted[3]] * 8)
    assert [credit.places for credit in credits] == [PLACES, PLACES, [], []]
    assert relevance_loss(torch.zeros(1, len(credits[2].others_T), 24), credits[2:3]) == 0


def test_without_a_weight_relevances_alone_learn():
    group = group_of(answered((3, 1, 2), (0, 2, 1)), answered((3, 3, 1), (2, 0, 1)))
    credits = credits_of(group, PARAMS.model_copy(update={"validity_weight": 0.0}), 0.5)
    assert not any(credit.others_T.any() for credit in credits) and credits[0].worth_KL.any()


def wrong_by_trying(levels, said, rights) -> int | None:
    """Place in `said` of the first token behind which no right answer begins; None where it is one."""
    for place in range(len(said)):
        if not any(right[: place + 1] == said[: place + 1] for right in rights):
            return place
    return None if said in rights else len(said)


@pytest.mark.parametrize("levels", [(3, 1, 2), (2, 2, 0), (1, 1, 1)])
def test_the_first_wrong_token_is_the_one_behind_which_no_right_answer_begins(levels):
    """Over all words of up to four of the letters, of one that is not in the slate, and of the end."""
    end = TOKENIZER.encode(END, add_special_tokens=False)
    orders = [order for order in itertools.permutations(range(3)) if all(levels[a] >= levels[b] for a, b in itertools.pairwise(order))]
    rights = [[*(LETTERS[place] for place in order), *end] for order in orders]
    thought = answered(levels, ()).token_ids[: -len(end)]
    found = set()
    for length in range(5):
        for said in map(list, itertools.product([*LETTERS[:4], *end], repeat=length)):
            wrong, task = wrong_by_trying(levels, said, rights), Task([0], WHOLE, 2, (0, 1, 2))
            # One that is cut off has no wrong token.
            assert first_wrong(task, thought + said) == (None if wrong in (None, length) else len(thought) + wrong)
            found.add(wrong)
    assert found == {None, 0, 1, 2, 3}


def test_of_a_name_of_several_tokens_the_first_wrong_one_is_found():
    """As where the answer is SIDs: C, A B and A C are the names."""
    a, b, c = LETTERS[:3]
    task = Task([0], replace(WHOLE, names=[[c], [a, b], [a, c]]), 2, (0, 1, 2))
    end = TOKENIZER.encode(END, add_special_tokens=False)
    thought = answered((3, 2, 1), ()).token_ids[: -len(end)]
    assert first_wrong(task, [*thought, c, a, b, a, c, *end]) is None
    assert first_wrong(task, [*thought, c, a, c, a, b, *end]) == len(thought) + 2


def test_one_valid_answer_teaches_though_rewards_are_tied():
    tied = group_of(answered((3, 1, 2), (0, 2, 1)), answered((3, 1, 2), (0, 2, 1)))
    assert teaches(tied, PARAMS) and not teaches(tied, RlParams())
    faulty = group_of(answered((3, 1, 2), (2, 0, 1)), answered((3, 1, 2), (2, 0, 1)))
    assert not teaches(faulty, PARAMS)
    for lesson in ("sorting_nll", "quoting_nll"):
        assert teaches(faulty, PARAMS.model_copy(update={lesson: 0.1})), "what is wrong is what the lesson is about"


def test_where_all_answers_earn_the_same_worth_is_in_the_rewards_own_unit():
    """A standard deviation of 0 is no scale: dividing by next to nothing would make one step of ten thousand."""
    alike = group_of(answered((3, 1, 2), (0, 2, 1)), answered((3, 1, 2), (0, 2, 1)))
    own, scaled = (credits_of(alike, PARAMS, std)[0].worth_KL for std in (0.0, 1.0))
    assert torch.allclose(own, scaled, rtol=1e-3) and own.abs().max() < 2


def test_a_trace_with_a_relevance_too_few_has_none():
    task = Task([0], WHOLE, 2, (0, 1, 2))
    ids = answered((3, 1, 2), (0, 2, 1)).token_ids
    assert judged(task, ids) == dict(zip(PLACES, (3, 1, 2), strict=True))
    assert judged(task, ids[2:]) == {}
    b_first = [*ids[2:4], *ids[:2], *ids[4:]]
    assert judged(task, b_first) == {}, "as many, of candidates in another order"


def test_a_tokenizer_that_splits_relevances_is_refused():
    """Nothing would be learnt, and nothing would say so."""
    rule = replace(WHOLE, quotes=[[1]] * 3)
    require_quotes([Task([0], rule, 2, (0, 1, 2))], PARAMS)
    split = replace(rule, layout=replace(rule.layout, relevances=[]))
    with pytest.raises(StageError, match=r"rl\.credit: relevance asks for one token a relevance"):
        require_quotes([Task([0], split, 2, (0, 1, 2))], PARAMS)


@pytest.mark.parametrize("form", ["cache", "tree", "none"])
def test_an_update_moves_the_relevances_towards_what_they_earn(form):
    """A policy that has just drawn two answers in which the target is last: what would have raised it becomes likelier."""
    model = tiny_model(len(TOKENIZER))
    params = RlParams(credit="relevance", prompts=1, group=2, micro_prompts=1, threads=1, lr=1e-3, shared_prefix=form)
    ids = [answered((3, 2, 1), (0, 1, 2)).token_ids, answered((2, 2, 0), (0, 1, 2)).token_ids]

    def chances() -> torch.Tensor:
        logp, *_ = response_logprobs(model, [[5, 6, 7]], [ids], 0)
        return logp.detach()

    completions = [Completion(own, row.tolist()) for own, row in zip(ids, chances(), strict=True)]
    group = group_of(*completions, params=params)
    assert [answer.order for answer in group.answers] == [(0, 1, 2)] * 2 and group.rewards == [0.0, 0.0]

    def reward() -> float:
        """Expected, over the level of each candidate by itself."""
        beside_BTL = open_policy(model, params).score([[5, 6, 7]], [ids], 0, Drawn(beside=tuple(LEVELS))).beside
        assert beside_BTL is not None
        worth_RKL = [credit.worth_KL for credit in credits_of(group, params, 1.0)]
        return sum(float((chances[PLACES].exp() * worth).sum()) for chances, worth in zip(beside_BTL.detach(), worth_RKL, strict=True))

    before = reward()
    update(open_policy(model, params), Rollouts([group], [group], 0), params, 0)
    assert reward() > before + 1e-4


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"objective": "gspo"}, "objective: gspo has others; take dapo"),
        ({"reward": "random"}, "which reward: random does not say"),
        ({"consistent": False}, "set consistent to true"),
        ({"credit": "answer", "validity_weight": 0.5}, "under credit: relevance alone"),
        ({"credit": "relevance", "importance_cap": 2.0}, "no token is weighed"),
        ({"grounding_weight": 0.1}, "rank and format alone"),
        ({"allocation": {"d3s_share": 0.5}}, "allocation.d3s_share"),
    ],
)
def test_what_it_does_not_go_with(more, said):
    with pytest.raises(ValueError, match=said):
        RlParams(**{"credit": "relevance", **more})

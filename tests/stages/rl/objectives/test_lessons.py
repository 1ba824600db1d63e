"""Answers and quotes as lessons: which tokens are right, what the loss is, and that a policy learns from its own mistakes."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from stages.rl.credit import credits_of, relevance_loss, right_nexts, right_quotes
from stages.rl.logprobs import response_logprobs
from stages.rl.objectives.lessons import lesson_loss, lesson_tokens, lessons_loss
from stages.rl.params import RlParams
from stages.rl.policy import open_policy
from stages.rl.rollouts import Rollouts, Task
from stages.rl.update import update
from stages.shared.generation.base import Completion
from stages.shared.slates.layouts.marks import END
from tests.stages.rl.test_credit import LETTERS, LEVELS, TOKENIZER, WHOLE, answered, group_of
from tests.support.tiny_models import tiny_model

PARAMS = RlParams(credit="relevance", sorting_nll=0.5, prompts=1, group=2, micro_prompts=1, threads=1, lr=1e-3)
TASK = Task([5, 6, 7], WHOLE, 2, (0, 1, 2))
A, B, C = LETTERS[:3]
[THE_END] = TOKENIZER.encode(END, add_special_tokens=False)


@pytest.mark.parametrize("levels", [(3, 1, 2), (2, 2, 0), (1, 1, 1)])
def test_right_tokens_are_those_that_a_right_answer_goes_on_with(levels):
    """Over all words of up to four of the letters, of one that is not in the slate, and of the end."""
    orders = [order for order in itertools.permutations(range(3)) if all(levels[a] >= levels[b] for a, b in itertools.pairwise(order))]
    rights = [[*(LETTERS[place] for place in order), THE_END] for order in orders]
    thought = answered(levels, ()).token_ids[:-1]
    for length in range(5):
        for said in map(list, itertools.product([*LETTERS[:4], THE_END], repeat=length)):
            wanted = []
            for place in range(length):
                nexts = sorted({right[place] for right in rights if right[:place] == said[:place]})
                wanted.append((len(thought) + place, nexts))
                if said[place] not in nexts or said[place] == THE_END:
                    break
            assert right_nexts(TASK, thought + said) == wanted


def test_the_loss_is_the_cross_entropy_of_all_right_tokens_together():
    """A and B are level: either may come first. The second answer names C before them, and what follows is no lesson."""
    group = group_of(answered((2, 2, 0), (1, 0, 2)), answered((2, 2, 0), (2, 0, 1)))
    credits = credits_of(group, PARAMS, 1.0)
    vocabulary = sorted(lesson_tokens(group.task, PARAMS))
    assert set(vocabulary) == {A, B, C, THE_END}
    first = len(group.completions[0].token_ids) - 4
    beside_BTL = torch.log_softmax(torch.randn(2, first + 4, 4, generator=torch.Generator().manual_seed(1)), -1).requires_grad_()
    chances = beside_BTL.exp().tolist()
    rights = [(0, 0, [A, B]), (0, 1, [A]), (0, 2, [C]), (0, 3, [THE_END]), (1, 0, [A, B])]
    wanted = -sum(math.log(sum(chances[row][first + place][vocabulary.index(token)] for token in one)) for row, place, one in rights)
    loss = lesson_loss(beside_BTL, vocabulary, [credit.answer for credit in credits])
    assert lessons_loss(beside_BTL, vocabulary, credits, PARAMS) == 0.5 * loss, "sorting alone is on"
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    [gradient] = torch.autograd.grad(loss, beside_BTL)
    assert torch.isfinite(gradient).all() and not gradient[1, first + 1 :].any() and gradient[1, first].any()


def test_what_cannot_be_sorted_teaches_nothing():
    endless = Completion([A, LEVELS[3]] * 4, [-0.5] * 8)
    missing = Completion([A, LEVELS[3], *answered((), (0, 1, 2)).token_ids], [-0.5] * 7)
    credits = credits_of(group_of(endless, missing), PARAMS, 1.0)
    assert [credit.answer for credit in credits] == [[], []]
    assert lessons_loss(torch.zeros(2, 8, 4), sorted(lesson_tokens(TASK, PARAMS)), credits, PARAMS) == 0


def test_a_trace_that_never_ends_is_not_sorted():
    """As many relevances as candidates, but cut off: there is no answer whose first token could be right."""
    cut = Completion(answered((3, 1, 2), ()).token_ids[:-2], [-0.5] * 6)
    params = PARAMS.model_copy(update={"quoting_nll": 0.5})
    assert [credit.answer for credit in credits_of(group_of(cut, cut), params, 1.0)] == [[], []]
    left_out = params.model_copy(update={"overlong": "filter"})
    credits = [credits_of(group_of(cut, cut, rule=QUOTING.constraint), one, 1.0)[0] for one in (params, left_out)]
    assert [bool(credit.quotes) for credit in credits] == [True, False], "filtered answers are left out of every loss"


@pytest.mark.parametrize("lessons", [{"sorting_nll": 0.1}, {"quoting_nll": 0.1}, {"sorting_nll": 0.1, "quoting_nll": 0.1}])
def test_tokens_that_the_constraint_closes_teach_nothing_and_break_nothing(lessons):
    """-inf times a weight of zero is no zero. Of a lesson all of whose right tokens are closed nothing can be learnt."""
    params = RlParams(credit="relevance", group=2, **lessons)
    credits = credits_of(group_of(*[Completion([*SCRIPT, A, C, B, THE_END], [-0.5] * 15)] * 2, rule=QUOTING.constraint), params, 1.0)
    vocabulary = sorted(lesson_tokens(QUOTING, params))
    beside_BTL = torch.full((2, 15, len(vocabulary)), -1.0).masked_fill(torch.arange(15)[:, None] % 2 == 1, -torch.inf).requires_grad_()
    loss = lessons_loss(beside_BTL, vocabulary, credits, params) + relevance_loss(
        beside_BTL, [credit._replace(places=[]) for credit in credits]
    )
    [gradient] = torch.autograd.grad(loss, beside_BTL)
    assert loss.item() > 0 and torch.isfinite(loss) and torch.isfinite(gradient).all()
    nothing = [credit._replace(answer=[], quotes=[]) for credit in credits]
    assert lessons_loss(beside_BTL, vocabulary, nothing, params).item() == 0


def test_a_policy_learns_to_sort_from_a_mistake_of_its_own():
    """Answers of one reward, each wrong at its first letter: but for the lesson they would all teach the same, which is nothing."""
    wrong, right = answered((3, 1, 2), (2, 0, 1)), answered((3, 1, 2), (0, 2, 1))

    def gain(weight: float) -> float:
        model = tiny_model(len(TOKENIZER))
        params = PARAMS.model_copy(update={"sorting_nll": weight})

        def chance() -> float:
            with torch.no_grad():
                place = len(right.token_ids) - 4
                return float(response_logprobs(model, [[5, 6, 7]], [[right.token_ids]], 0).logp[0, place].exp())

        before, policy = chance(), open_policy(model, params)
        for _ in range(3):
            scores = response_logprobs(model, [[5, 6, 7]], [[wrong.token_ids, right.token_ids]], 0)
            drawn = [Completion(one.token_ids, scores.logp[row].tolist()) for row, one in enumerate((wrong, right))]
            group = group_of(drawn[0], drawn[0], params=params)
            update(policy, Rollouts([group], [group], 0), params, 0)
        return chance() - before

    assert gain(0.5) > 0.01 > abs(gain(0.0))


QUOTING = Task([5, 6, 7], replace(WHOLE, opening=[90], quotes=[[A, 91], [B, 92], [C, 92]]), 2, (0, 1, 2))
SCRIPT = [90, A, 91, LEVELS[3], B, 92, LEVELS[1], C, 92, LEVELS[2], WHOLE.layout.think_end]


def test_right_quotes_are_those_of_the_prompt_and_any_relevance_behind_each():
    lessons = right_quotes(QUOTING, [*SCRIPT, A, C, B, THE_END])
    assert [place for place, _ in lessons] == list(range(11)), "the answer is another lesson"
    assert [nexts for _, nexts in lessons] == [[token] if token not in LEVELS else LEVELS for token in SCRIPT]
    for place in range(11):
        wrong = [*SCRIPT[:place], 99, *SCRIPT[place + 1 :]]
        assert right_quotes(QUOTING, wrong) == lessons, "behind a wrong value the next ones are right as before"
        longer = [*wrong[: place + 1], 99, *SCRIPT[place + 1 :]]
        assert right_quotes(QUOTING, longer) == lessons[: place + 1], "else the first wrong token is the last lesson"
        assert right_quotes(QUOTING, SCRIPT[:place]) == lessons[:place], "an answer that is cut off"
    # A relevance left out, and one too many: what comes instead is wrong.
    assert right_quotes(QUOTING, [*SCRIPT[:3], *SCRIPT[4:]]) == lessons[:4]
    assert right_quotes(QUOTING, [*SCRIPT[:4], *SCRIPT[3:]]) == lessons[:5]
    assert right_quotes(replace(QUOTING, constraint=replace(WHOLE, quotes=[])), SCRIPT) == [], "no such list"


def test_quotes_are_weighed_by_their_own_key():
    params = PARAMS.model_copy(update={"quoting_nll": 0.25, "sorting_nll": 0.0})
    completion = Completion([*SCRIPT, A, C, B, THE_END], [-0.5] * 15)
    credits = credits_of(group_of(completion, completion, rule=QUOTING.constraint), params, 1.0)
    assert [(len(credit.quotes), len(credit.answer)) for credit in credits] == [(11, 0)] * 2
    vocabulary = sorted(lesson_tokens(QUOTING, params))
    assert set(vocabulary) == {90, 91, 92, A, B, C, *LEVELS, WHOLE.layout.think_end}
    even_BTL = torch.full((2, 15, len(vocabulary)), -2.0)
    wanted = 2 * (11 * 2.0 - 3 * math.log(len(LEVELS)))
    assert lessons_loss(even_BTL, vocabulary, credits, params).item() == pytest.approx(0.25 * wanted)


def test_a_policy_learns_to_quote_from_a_mistake_of_its_own():
    """No answer is valid, so nothing is rewarded: the lesson is all there is."""
    wrong = Completion([90, A, 92], [-0.5] * 3)
    model = tiny_model(len(TOKENIZER))
    policy = open_policy(model, PARAMS.model_copy(update={"quoting_nll": 0.5}))

    def chance() -> float:
        with torch.no_grad():
            return float(response_logprobs(model, [[5, 6, 7]], [[[90, A, 91]]], 0).logp[0, 2].exp())

    before = chance()
    for _ in range(3):
        group = group_of(wrong, wrong, rule=QUOTING.constraint)
        update(policy, Rollouts([group], [group], 0), PARAMS.model_copy(update={"quoting_nll": 0.5}), 0)
    assert chance() > before + 0.01


@pytest.mark.parametrize("name", ["sorting_nll", "quoting_nll"])
def test_it_needs_relevances(name):
    with pytest.raises(ValueError, match=f"{name}: what is right in its place is known under credit: relevance alone"):
        RlParams(**{name: 0.5})

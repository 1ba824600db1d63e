"""The answer as a lesson: which tokens keep to the relevances, what the loss is, and that a policy learns to sort from its own mistakes."""

import itertools
import math

import pytest
import torch

from stages.rl.credit import credits_of, right_nexts
from stages.rl.logprobs import response_logprobs
from stages.rl.objectives.sorting import answer_tokens, sorting_loss
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
    vocabulary = answer_tokens(group.task)
    assert set(vocabulary) == {A, B, C, THE_END}
    first = len(group.completions[0].token_ids) - 4
    beside_BTL = torch.log_softmax(torch.randn(2, first + 4, 4, generator=torch.Generator().manual_seed(1)), -1).requires_grad_()
    chances = beside_BTL.exp().tolist()
    rights = [(0, 0, [A, B]), (0, 1, [A]), (0, 2, [C]), (0, 3, [THE_END]), (1, 0, [A, B])]
    wanted = -sum(math.log(sum(chances[row][first + place][vocabulary.index(token)] for token in one)) for row, place, one in rights)
    loss = sorting_loss(beside_BTL, vocabulary, credits)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    [gradient] = torch.autograd.grad(loss, beside_BTL)
    assert torch.isfinite(gradient).all() and not gradient[1, first + 1 :].any() and gradient[1, first].any()


def test_what_cannot_be_sorted_teaches_nothing():
    endless = Completion([A, LEVELS[3]] * 4, [-0.5] * 8)
    missing = Completion([A, LEVELS[3], *answered((), (0, 1, 2)).token_ids], [-0.5] * 7)
    credits = credits_of(group_of(endless, missing), PARAMS, 1.0)
    assert [credit.nexts for credit in credits] == [[], []]
    assert sorting_loss(torch.zeros(2, 8, 4), answer_tokens(TASK), credits) == 0


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


def test_it_needs_relevances():
    with pytest.raises(ValueError, match="sorting_nll: which answer is right is known under credit: relevance alone"):
        RlParams(sorting_nll=0.5)

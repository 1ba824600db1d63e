"""Right answers as examples: which tokens are copied, and that a policy keeps to them while its relevances move."""

import pytest
import torch

from stages.rl.credit import credits_of
from stages.rl.logprobs import response_logprobs
from stages.rl.objectives.parts import Whole
from stages.rl.objectives.positive import example_tokens, positive_loss
from stages.rl.params import RlParams
from stages.rl.policy import open_policy
from stages.rl.rollouts import Rollouts
from stages.rl.update import update
from stages.shared.generation.base import Completion
from tests.stages.rl.objectives.test_dapo import drawn
from tests.stages.rl.test_credit import PLACES, TOKENIZER, answered, group_of
from tests.support.tiny_models import tiny_model

PARAMS = RlParams(positive_nll=0.1)
RISES, STAYS, CONTRADICTS = answered((1, 0, 3), (2, 0, 1)), answered((3, 1, 2), (0, 2, 1)), answered((1, 0, 3), (0, 1, 2))


def test_the_loss_is_the_mean_cross_entropy_of_the_examples():
    part = drawn(5)
    part = part._replace(logp_BT=part.logp_BT.clone().requires_grad_(), example_BT=(part.old_BT < -1).float())
    loss = positive_loss(part, Whole(50.0, 8.0), PARAMS)
    copied = [
        part.logp_BT[row, place].item()
        for row in range(len(part.logp_BT))
        for place in range(int(part.mask_BT[row].sum()))
        if part.old_BT[row, place] < -1
    ]
    assert len(copied) > 9 and loss.item() == pytest.approx(-0.1 * sum(copied) / 50, rel=1e-5)
    [gradient] = torch.autograd.grad(loss, part.logp_BT)
    assert torch.allclose(gradient, -0.1 / 50 * part.example_BT * part.mask_BT)


def test_answers_that_raise_the_target_are_the_examples():
    """The target is the third; an answer that leaves it there, or below another, is no example."""
    group = group_of(RISES, answered((3, 2, 1), (0, 1, 2)), CONTRADICTS)
    length = len(RISES.token_ids)
    assert example_tokens([group, group], None) == [[1.0] * length, [0.0] * length, [0.0] * length] * 2


def test_under_credit_of_relevances_it_is_valid_answers_without_them():
    group = group_of(answered((3, 2, 1), (0, 1, 2)), CONTRADICTS)
    rows = example_tokens([group], credits_of(group, RlParams(credit="relevance"), 1.0))
    assert [place for place, value in enumerate(rows[0]) if not value] == PLACES and not any(rows[1])


def test_a_policy_keeps_to_what_it_did_right():
    """Two valid answers of one reward under rl.credit: relevance: nothing but the examples says anything of quotes and order."""
    ids = [STAYS.token_ids, STAYS.token_ids]
    kept = [place for place in range(len(ids[0])) if place not in PLACES]

    def gain(weight: float) -> float:
        model = tiny_model(len(TOKENIZER))
        params = RlParams(credit="relevance", prompts=1, group=2, micro_prompts=1, threads=1, lr=1e-3, positive_nll=weight)

        def logp() -> torch.Tensor:
            found, *_ = response_logprobs(model, [[5, 6, 7]], [ids], 0)
            return found.detach()

        before = logp()
        group = group_of(*(Completion(own, row.tolist()) for own, row in zip(ids, before, strict=True)), params=params)
        update(open_policy(model, params), Rollouts([group], [group], 0), params, 0)
        return float((logp() - before)[:, kept].mean())

    assert gain(1.0) > gain(0.0) + 0.1


def test_a_random_reward_has_no_right_answers():
    with pytest.raises(ValueError, match="positive_nll asks which answers are right"):
        RlParams(reward="random", positive_nll=0.1)

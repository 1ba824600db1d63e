"""One step of learning on a tiny model: parts, updates, empty steps, and the direction."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from stages.rl.logprobs import response_logprobs
from stages.rl.params import RlParams
from stages.rl.policy import MAX_GRAD_NORM, Policy, open_policy
from stages.rl.rl import pairs_seen, update
from stages.rl.rollouts import Group, Rollouts, Task
from stages.shared.core.errors import StageError
from stages.shared.generation.base import Completion
from stages.shared.slates.answers import Answer
from stages.shared.slates.slate import Slate
from tests.stages.shared.slates.test_constraint import constraint
from tests.support.tiny_models import random_prompts, tiny_model

VOCABULARY, PAD = 64, 0
CONSTRAINT = constraint(1)
SMALL = {"prompts": 3, "group": 4, "micro_prompts": 2, "threads": 1, "lr": 1e-3}


def rollouts(model, groups: int, seed: int = 0) -> Rollouts:
    prompts = random_prompts(groups, VOCABULARY, 4, 8, seed)
    flat = random_prompts(4 * groups, VOCABULARY, 2, 7, seed + 1)
    rng = np.random.default_rng(seed)
    rows = []
    for place, prompt in enumerate(prompts):
        own = flat[4 * place : 4 * place + 4]
        logp, mask = response_logprobs(model, [prompt], [own], PAD)
        logprobs = [row[kept > 0].tolist() for row, kept in zip(logp.detach(), mask, strict=True)]
        completions = [Completion(ids, numbers) for ids, numbers in zip(own, logprobs, strict=True)]
        rows.append(Group(Task(prompt, CONSTRAINT, 0, (0,)), completions, [Answer((0,), "")] * 4, rng.normal(size=4).tolist()))
    return Rollouts(rows, rows, 0)


def weights(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


def learnt(groups: int, **more) -> tuple[torch.Tensor, dict[str, float]]:
    """The change of the weights and what was measured."""
    model = tiny_model(VOCABULARY)
    batch, before = rollouts(model, groups), weights(model)
    params = RlParams(**{**SMALL, **more})
    measured = update(open_policy(model, params), batch, params, PAD)
    return weights(model) - before, measured


def test_parts_of_a_step_equal_one_part_also_where_they_are_recomputed():
    """Plain SGD instead of Adam would show a scale; Adam's first step shows only signs, so the clipped gradient is compared."""
    gradients = []
    for micro, recomputed in ((1, False), (2, False), (3, False), (1, True)):
        model = tiny_model(VOCABULARY)
        form = "tree" if recomputed else "cache"
        params = RlParams(**{**SMALL, "micro_prompts": micro, "gradient_checkpointing": recomputed, "shared_prefix": form})
        batch, before = rollouts(model, 3), weights(model)
        policy = open_policy(model, params)
        policy.optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        update(policy, batch, params, PAD)
        gradients.append(weights(model) - before)
    assert 0 < float(gradients[0].norm()) <= MAX_GRAD_NORM * 1.001
    assert all(torch.allclose(gradients[0], others, atol=1e-5) for others in gradients[1:])


def test_on_policy_nothing_is_clipped_and_the_samplers_numbers_are_met():
    _, measured = learnt(3)
    assert measured["clipped"] == 0 and measured["logprob_gap"] < 1e-5


def test_a_second_update_on_the_same_rollouts_is_off_policy():
    once, _ = learnt(3, lr=1e-2)
    twice, measured = learnt(3, lr=1e-2, updates=2)
    assert not torch.allclose(once, twice) and measured["clipped"] > 0 and measured["logprob_gap"] > 1e-3


def test_the_better_response_becomes_likelier():
    model = tiny_model(VOCABULARY)
    batch = rollouts(model, 1)
    group = batch.kept[0]
    best, worst = int(np.argmax(group.rewards)), int(np.argmin(group.rewards))

    def likelihoods() -> torch.Tensor:
        logp, mask = response_logprobs(model, [group.task.prompt], [[c.token_ids for c in group.completions]], PAD)
        return (logp * mask).sum(1).detach()

    before = likelihoods()
    params = RlParams(**{**SMALL, "prompts": 1})
    update(open_policy(model, params), batch, params, PAD)
    gain = likelihoods() - before
    assert gain[best] > 0 > gain[worst]


def test_a_step_without_any_group_changes_nothing():
    change, measured = learnt(0)
    assert not change.any() and measured == {"loss": 0.0, "clipped": 0.0, "logprob_gap": 0.0}


def test_fewer_groups_than_parts():
    change, _ = learnt(1, micro_prompts=1)
    assert change.abs().max() > 0


def test_zero_loss_gives_every_parameter_a_gradient_of_zero():
    policy = Policy(tiny_model(VOCABULARY), RlParams(**SMALL))
    policy.backward(policy.zero_loss())
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in policy.module.parameters())


def test_processes_without_deepspeed_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(StageError, match=r"rl\.processes > 1 needs rl\.deepspeed"):
        open_policy(tiny_model(VOCABULARY), RlParams())


def test_processes_without_deepspeed_are_refused_before_torchrun_starts_any():
    with pytest.raises(ValidationError, match="2 processes need deepspeed"):
        RlParams(processes=2)
    assert RlParams(processes=2, deepspeed="infra/deepspeed/zero2.json").all_processes == 2


def test_a_cache_is_refused_where_it_cannot_be():
    with pytest.raises(StageError, match=r"zero3\.json: rl\.shared_prefix: cache takes ZeRO stage 2 at most; set it to tree"):
        open_policy(tiny_model(VOCABULARY), RlParams(deepspeed="infra/deepspeed/zero3.json"))
    for asked in ("gradient_checkpointing", "logprob_chunk"):
        with pytest.raises(ValidationError, match=rf"shared_prefix: cache: {asked} recomputes .* set shared_prefix to tree"):
            RlParams.model_validate({asked: True if asked == "gradient_checkpointing" else 64})


def test_pairs_seen_are_history_and_target():
    slate = Slate(0, 4, "train", 0, [1, 2], [7, 8, 9], [], 1)
    assert pairs_seen([slate]).rows() == [(4, 1), (4, 2), (4, 8)]


@pytest.mark.parametrize("form", ["tree", "none"])
def test_gradient_checkpointing_recomputes_every_layer(form):
    model = tiny_model(VOCABULARY)
    batch = rollouts(model, 3)
    params = RlParams(**SMALL, gradient_checkpointing=True, shared_prefix=form)
    policy = open_policy(model, params)
    calls = []
    model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    update(policy, batch, params, PAD)
    calls = [call for call in calls if call]
    assert len(calls) % 2 == 0 and calls, "each forward pass once more in the backward pass"

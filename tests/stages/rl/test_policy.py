"""One step of learning on a tiny model: parts, updates, empty steps, and the direction."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from stages.rl.logprobs import response_logprobs
from stages.rl.objectives.choose import OBJECTIVES
from stages.rl.params import RlParams
from stages.rl.policy import MAX_GRAD_NORM, Policy, open_policy
from stages.rl.rl import load_reference
from stages.rl.rollouts import Group, Rollouts, Task
from stages.rl.update import MEASURED, batch_moments, step_advantages, update
from stages.shared.core.errors import StageError
from stages.shared.generation.base import Completion
from stages.shared.slates.answers import Answer
from stages.shared.slates.slate import Slate, pairs_seen
from tests.stages.shared.slates.test_constraint import constraint
from tests.support.tiny_models import random_prompts, tiny_folder, tiny_model

VOCABULARY, PAD = 64, 0
CONSTRAINT = constraint(1, enforced=False)
SMALL = {"prompts": 3, "group": 4, "micro_prompts": 2, "threads": 1, "lr": 1e-3}


def rollouts(model, groups: int, seed: int = 0) -> Rollouts:
    prompts = random_prompts(groups, VOCABULARY, 4, 8, seed)
    flat = random_prompts(4 * groups, VOCABULARY, 2, 7, seed + 1)
    rng = np.random.default_rng(seed)
    rows = []
    for place, prompt in enumerate(prompts):
        own = flat[4 * place : 4 * place + 4]
        logp, mask, *_ = response_logprobs(model, [prompt], [own], PAD)
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
    assert not torch.allclose(once, twice) and measured["clipped"] > 0
    assert measured["logprob_gap"] < 1e-5, "what the first update changed is no difference between sampler and trainer"


def test_the_better_response_becomes_likelier():
    model = tiny_model(VOCABULARY)
    batch = rollouts(model, 1)
    group = batch.kept[0]
    best, worst = int(np.argmax(group.rewards)), int(np.argmin(group.rewards))

    def likelihoods() -> torch.Tensor:
        logp, mask, *_ = response_logprobs(model, [group.task.prompt], [[c.token_ids for c in group.completions]], PAD)
        return (logp * mask).sum(1).detach()

    before = likelihoods()
    params = RlParams(**{**SMALL, "prompts": 1})
    update(open_policy(model, params), batch, params, PAD)
    gain = likelihoods() - before
    assert gain[best] > 0 > gain[worst]


def test_a_step_without_any_group_changes_nothing():
    change, measured = learnt(0)
    assert not change.any() and measured == dict.fromkeys(MEASURED, 0.0)


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


def gradient(model, batch, reference=None, **more) -> torch.Tensor:
    """What one step of plain gradient descent at rate 1 changes."""
    params, before = RlParams(**{**SMALL, **more}), weights(model)
    policy = open_policy(model, params)
    policy.optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    update(policy, batch, params, PAD, reference)
    return weights(model) - before


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_every_objective_is_the_same_in_parts(objective):
    more = {"objective": objective, "cov_low": -9.0, "cov_share": 0.1}
    changes = []
    for micro in (1, 3):
        model = tiny_model(VOCABULARY)
        # Half of the answers are wrong, for an objective that asks which are right.
        groups = [replace(group, answers=[Answer((0,), ""), Answer(None, "missing")] * 2) for group in rollouts(model, 3).kept]
        changes.append(gradient(model, Rollouts(groups, groups, 0), micro_prompts=micro, **more))
    assert changes[0].norm() > 1e-3 and torch.allclose(changes[0], changes[1], atol=1e-5)


def with_gap(batch: Rollouts, gap: float) -> Rollouts:
    """The same answers from a sampler whose log-probabilities are off by `gap`."""
    groups = [replace(g, completions=[replace(c, logprobs=[p - gap for p in c.logprobs]) for c in g.completions]) for g in batch.kept]
    return Rollouts(groups, groups, 0)


def test_a_gap_between_sampler_and_trainer_is_measured_and_its_weight_truncated():
    model = tiny_model(VOCABULARY)
    batch = with_gap(rollouts(model, 3), 0.1)
    params = RlParams(**SMALL, importance_cap=1.05)
    measured = update(open_policy(model, params), batch, params, PAD)
    assert measured["logprob_gap"] == pytest.approx(0.1, abs=1e-3) and measured["truncated"] == 1 and measured["clipped"] == 0
    params = RlParams(**SMALL, importance_cap=2.0)
    assert update(open_policy(tiny_model(VOCABULARY), params), batch, params, PAD)["truncated"] == 0


def test_the_clip_does_not_bind_on_what_the_sampler_is_off_by():
    """A gap of 0.4 is a ratio of 1.5: uncorrected, all tokens with an advantage above zero are clipped before anything was learnt."""
    model = tiny_model(VOCABULARY)
    batch = with_gap(rollouts(model, 3), 0.4)
    uncorrected, corrected = RlParams(**SMALL), RlParams(**SMALL, importance_cap=4.0)
    assert update(open_policy(tiny_model(VOCABULARY), uncorrected), batch, uncorrected, PAD)["clipped"] > 0.2
    assert update(open_policy(tiny_model(VOCABULARY), corrected), batch, corrected, PAD)["clipped"] == 0


def test_the_reference_holds_the_policy_back():
    """Pulled by the KL alone (equal advantages are none), the policy goes towards the reference."""
    other = tiny_model(VOCABULARY, seed=5)
    params = RlParams(**SMALL, kl=1.0)
    gaps = []
    model = tiny_model(VOCABULARY)
    batch = rollouts(model, 3)
    batch = Rollouts([replace(group, rewards=[1.0] * 4) for group in batch.kept], [], 0)
    policy = open_policy(model, params)
    for _ in range(4):
        gaps.append(update(policy, batch, params, PAD, other)["kl"])
    assert gaps[-1] < 0.95 * gaps[0]
    assert update(open_policy(tiny_model(VOCABULARY), params), batch, params, PAD, tiny_model(VOCABULARY))["kl"] < 1e-6


def test_answers_cut_at_the_limit_are_left_out_of_the_loss_where_they_are_filtered():
    changes = {}
    for name, fault in (("filter", "unfinished"), ("filter", "missing"), ("penalise", "unfinished")):
        model = tiny_model(VOCABULARY)
        batch = rollouts(model, 2)
        cut = [replace(group, answers=[Answer(None, fault), *group.answers[1:]]) for group in batch.kept]
        changes[name, fault] = gradient(model, Rollouts(cut, cut, 0), overlong=name)
    assert torch.equal(changes["filter", "missing"], changes["penalise", "unfinished"])
    assert not torch.allclose(changes["filter", "unfinished"], changes["penalise", "unfinished"], atol=1e-4)


def test_a_loss_that_is_no_number_ends_the_run():
    model = tiny_model(VOCABULARY)
    batch = rollouts(model, 1)
    [group] = batch.kept
    bad = [replace(group, rewards=[float("nan")] * 4)]
    with pytest.raises(StageError, match="the loss is nan"):
        update(open_policy(model, RlParams(**SMALL)), Rollouts(bad, bad, 0), RlParams(**SMALL), PAD)


def test_moments_are_those_of_all_processes(monkeypatch):
    values = torch.randn(3, 4)
    assert batch_moments(values) == pytest.approx((float(values.mean()), float(values.std())))
    assert batch_moments(values[:0]) == (0.0, 0.0)
    monkeypatch.setattr("stages.rl.update.all_sum", lambda value: 2 * value)  # two processes with the same values
    assert batch_moments(values)[1] == pytest.approx(float(torch.cat([values, values]).std()))


def test_under_gdpo_each_part_is_normalised_and_their_sum_over_the_step():
    model = tiny_model(VOCABULARY)
    params = RlParams(**SMALL, reward="gdpo", alpha=0.5)
    rng = np.random.default_rng(0)
    groups = [replace(group, parts={name: rng.random(4).tolist() for name in ("rank", "format")}) for group in rollouts(model, 3).kept]
    expected = np.zeros((3, 4))
    for name, weight in (("rank", 1.0), ("format", 0.5)):
        values = np.array([group.parts[name] for group in groups])
        expected += weight * (values - values.mean(1, keepdims=True)) / (values.std(1, ddof=1, keepdims=True) + 1e-4)
    expected = (expected - expected.mean()) / (expected.std(ddof=1) + 1e-4)
    assert np.allclose(step_advantages(groups, params).numpy(), expected.flatten(), atol=1e-5)


def test_sgd_steps_are_as_long_as_the_gradient():
    """The first is lr times the gradient, cut to its largest norm; the second has 0.9 of the first beside."""
    first, measured = learnt(2, optimizer="sgd", lr=0.001)
    assert float(first.norm()) == pytest.approx(0.001 * min(MAX_GRAD_NORM, measured["grad_norm"]), rel=1e-3)
    both, _ = learnt(2, optimizer="sgd", lr=0.001, updates=2, clip_low=0.99, clip_high=1e6)
    # At this rate the second gradient hardly differs from the first.
    assert float(both.norm() / first.norm()) == pytest.approx(2.9, rel=0.05)
    assert float(torch.cosine_similarity(first, both, dim=0)) > 0.99


def test_sgd_is_not_for_deepspeed():
    with pytest.raises(ValueError, match="DeepSpeed brings its own AdamW"):
        RlParams(optimizer="sgd", deepspeed="infra/deepspeed/zero2.json")


@pytest.mark.parametrize(("has_kernels", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_reference_is_in_the_precision_that_training_computes_in(tmp_path, monkeypatch, has_kernels, expected):
    monkeypatch.setattr("stages.shared.core.device.multiplies_in", lambda dtype, where="auto": has_kernels)
    params = RlParams(**SMALL, precision="bfloat16", kl=0.1)
    reference = load_reference(open_policy(tiny_model(VOCABULARY), params), tiny_folder(tmp_path / "model"), params)
    assert reference.dtype == expected and not any(parameter.requires_grad for parameter in reference.parameters())

"""The token-level loss against a loop over tokens, and the advantages against numpy."""

import math

import numpy as np
import pytest
import torch

from stages.rl.objectives.advantages import batch_normalised, centred, gdpo_normalised, gdpo_sums, group_normalised, has_reward_variance
from stages.rl.objectives.choose import OBJECTIVES
from stages.rl.objectives.dapo import dapo
from stages.rl.objectives.parts import Part, Whole
from stages.rl.params import RlParams

LOW, HIGH = 0.2, 0.28
PARAMS = RlParams(clip_low=LOW, clip_high=HIGH, group=4, max_tokens=16)


def drawn(seed: int = 0, rows: int = 8, length: int = 11) -> Part:
    generator = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(rows, length, generator=generator)
    logp = old + 0.4 * torch.randn(rows, length, generator=generator)
    lengths = torch.randint(1, length + 1, (rows,), generator=generator)
    mask = (torch.arange(length) < lengths[:, None]).float()
    rewards = torch.randn(rows, generator=generator)
    return Part(logp, old, mask, torch.randn(rows, generator=generator), rewards, rewards > 0)


def rows_of(part: Part, rows: slice) -> Part:
    return Part(*(None if value is None else value[rows] for value in part))


def looped(part: Part, low: float, high: float) -> tuple[float, int]:
    """Equation 8 of arXiv 2503.14476, one token at a time: (sum of the objective, tokens where the clip binds)."""
    total, binds = 0.0, 0
    for row in range(len(part.logp_BT)):
        gain = part.advantage_B[row].item()
        for place in range(int(part.mask_BT[row].sum())):
            ratio = math.exp(part.logp_BT[row, place].item() - part.old_BT[row, place].item())
            clipped = min(max(ratio, 1 - low), 1 + high) * gain
            total += min(ratio * gain, clipped)
            binds += clipped < ratio * gain
    return total, binds


def test_loss_equals_a_loop_over_tokens():
    part = drawn()
    total, binds = looped(part, LOW, HIGH)
    loss = dapo(part, Whole(100.0, 8.0), PARAMS)
    assert float(loss.value) == pytest.approx(-total / 100, rel=1e-5)
    assert binds > 0 and float(loss.clipped) == pytest.approx(binds / float(part.mask_BT.sum()))


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_parts_of_a_step_add_up_to_the_whole(name):
    """The penalty of disco is of the groups of one pass, so it is off here."""
    part = drawn(3)
    part = part._replace(
        weight_BT=torch.rand_like(part.logp_BT), reference_BT=part.old_BT - 0.1, selected_BT=torch.rand_like(part.logp_BT) < 0.2
    )
    params = RlParams(group=4, max_tokens=16, objective=name, disco_beta=0.0, kl=0.0 if name == "disco" else 0.1)
    whole = Whole(float(part.mask_BT.sum()), 8.0)
    parts = [OBJECTIVES[name].loss(rows_of(part, rows), whole, params).value for rows in (slice(0, 4), slice(4, 8))]
    assert torch.allclose(OBJECTIVES[name].loss(part, whole, params).value, sum(parts), atol=1e-6)


@pytest.mark.parametrize(("ratio", "gain", "learns"), [(1.27, 1, True), (1.29, 1, False), (0.79, -1, False), (0.81, -1, True)])
def test_the_clip_is_higher_than_it_is_low(ratio, gain, learns):
    logp = torch.tensor([[math.log(ratio)]], requires_grad=True)
    one = torch.ones(1, 1)
    loss = dapo(Part(logp, torch.zeros(1, 1), one, torch.tensor([float(gain)]), one[0], one[0] > 0), Whole(1.0, 1.0), PARAMS)
    loss.value.backward()
    assert (float(logp.grad) != 0) == learns == (float(loss.clipped) == 0)


def test_a_token_weighs_what_its_importance_does():
    part = drawn(5)._replace(weight_BT=torch.full((8, 11), 0.25))
    whole = Whole(10.0, 8.0)
    assert torch.allclose(dapo(part, whole, PARAMS).value, 0.25 * dapo(part._replace(weight_BT=None), whole, PARAMS).value)


def test_the_kl_is_none_where_the_reference_is_the_policy_and_pulls_back_elsewhere():
    part = drawn(6)
    params, whole = RlParams(group=4, kl=0.5), Whole(float(part.mask_BT.sum()), 8.0)
    plain = dapo(part, whole, params).value
    assert torch.allclose(dapo(part._replace(reference_BT=part.logp_BT), whole, params).value, plain)
    away = 0.3
    expected = plain + 0.5 * (math.exp(away) - away - 1)
    assert torch.allclose(dapo(part._replace(reference_BT=part.logp_BT + away), whole, params).value, expected)


def test_advantages_equal_numpy():
    rewards = np.random.default_rng(0).normal(size=(5, 8))
    offset = rewards - rewards.mean(1, keepdims=True)
    tensor = torch.tensor(rewards)
    assert np.allclose(group_normalised(tensor).numpy(), offset / (rewards.std(1, ddof=1, keepdims=True) + 1e-4))
    assert np.allclose(centred(tensor, 0.0).numpy(), offset)
    assert np.allclose(batch_normalised(tensor, rewards.std(ddof=1)).numpy(), offset / (rewards.std(ddof=1) + 1e-4))
    assert not group_normalised(torch.full((2, 4), 0.7)).any()


def test_gdpo_tells_apart_what_a_sum_does_not():
    """Rewards (1, 0) and (0, 1): their sums are equal, their normalised parts are not where one of them is rarer."""
    rank, form = [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]
    summed = group_normalised(torch.tensor([[a + b for a, b in zip(rank, form, strict=True)]]))
    assert summed[0, 0] == summed[0, 1]
    sums = gdpo_sums(torch.tensor([[rank], [form]]), [1.0, 1.0])
    # By hand: 0.75 / 0.5 - 0.5 / 0.57735 for the first, -0.25 / 0.5 + 0.5 / 0.57735 for the second.
    assert sums[0, :2].tolist() == pytest.approx([1.5 - 0.866025, -0.5 + 0.866025], abs=1e-3)
    normalised = gdpo_normalised(sums, float(sums.mean()), float(sums.std()))
    assert normalised.mean().item() == pytest.approx(0, abs=1e-6) and normalised.std().item() == pytest.approx(1, abs=1e-3)


def test_groups_without_variance_are_told_by_a_tolerance():
    """0.1 + 0.2 and 0.3 differ in the last bit: that is no variance."""
    rewards = torch.tensor([[0.1 + 0.2, 0.3, 0.3, 0.3], [0.3, 0.3, 0.3, 0.4], [-1.0, -1.0, -1.0, -1.0]], dtype=torch.float64)
    assert float(rewards[0].std()) > 0
    assert has_reward_variance(rewards, 1e-6).tolist() == [False, True, False]
    assert has_reward_variance(rewards, 0.1).tolist() == [False, False, False]

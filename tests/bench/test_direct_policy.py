"""RL without language: the same worths as the stage's, and a feature that says what is taken is learnt."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stages.rl.credit import worth_of_levels
from stages.rl.params import RlParams
from stages.rl.rollouts import Task
from tests.stages.shared.slates.test_constraint import constraint

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

import direct_policy as bench

K, SLATES = 3, 240
PARAMS = RlParams(rank_reward="ndcg")


def made_up(chances: bool = False) -> bench.Data:
    """Of the first feature the candidate with the highest bin is taken; the second is noise, and all the teacher knows."""
    rng = np.random.default_rng(2)
    bins = rng.integers(0, 10, (SLATES, K, 2))
    bins[..., 0] = np.argsort(rng.random((SLATES, K)), axis=1) * 3
    target = bins[..., 0].argmax(1)
    inputs, teacher = bench.as_input(bins), bins[..., 1] * 2
    taken = torch.tensor(target[:, None] == np.arange(K)).float() if chances else None
    users = np.arange(SLATES) % 40
    return bench.Data(inputs, torch.tensor(teacher), torch.tensor(target), users, taken, inputs, teacher, users, target, None)


def test_places_are_those_of_a_stable_sort():
    levels = torch.randint(0, 4, (50, 2, 6), generator=torch.Generator().manual_seed(1))
    orders = np.argsort(-levels.numpy(), axis=-1, kind="stable")
    assert (np.argsort(orders, axis=-1) == bench.ranks(levels).numpy()).all()


@pytest.mark.parametrize("arm", ["base", "conditional"])
def test_the_worth_of_a_level_is_the_stages(arm):
    data, chosen = made_up(), bench.ARMS[arm]
    rewards = bench.Rewards(data, chosen, PARAMS)
    levels_K, row = np.array([5, 11, 5]), 7
    changed = torch.tensor(levels_K)[None, None, None].repeat(1, K, bench.LEVELS, 1)
    changed[:, torch.arange(K), :, torch.arange(K)] = torch.arange(bench.LEVELS)
    task = Task([0], constraint(K), int(data.target_N[row]), tuple(range(K)))
    wanted = worth_of_levels(levels_K, task, PARAMS.model_copy(update={"reward": chosen.reward}))
    assert rewards(torch.tensor([row]), changed)[0].numpy() == pytest.approx(wanted, abs=1e-6)


def test_a_certain_choice_is_worth_what_its_target_is():
    data, levels = made_up(chances=True), torch.randint(0, 24, (SLATES, 4, K), generator=torch.Generator().manual_seed(1))
    rows = torch.arange(SLATES)
    one, other = (bench.Rewards(data, bench.ARMS[arm], PARAMS)(rows, levels) for arm in ("base", "expected"))
    assert torch.allclose(one, other)


@pytest.mark.parametrize("arm", ["base", "sampled", "nothing"])
def test_what_the_teacher_does_not_know_is_learnt(arm):
    options = SimpleNamespace(steps=60, answers=96, lr=0.02)
    run = bench.learn(made_up(), bench.ARMS[arm], PARAMS, options, 7)
    assert run["begun"][1].mean() < 0.8 and run["ended"][1].mean() > 0.9 and run["ended"][0] > run["begun"][0]

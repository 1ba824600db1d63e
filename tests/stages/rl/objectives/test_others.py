"""GRPO, Dr. GRPO, Lite PPO, GSPO, the covariance forms, DisCO and LiPO, each against a loop of its own written from the equation."""

import math

import pytest
import torch

from stages.rl.objectives.choose import OBJECTIVES
from stages.rl.objectives.covariance import covariances, select_for_clip, select_for_kl
from stages.rl.objectives.parts import Part, Whole
from stages.rl.params import RlParams
from tests.stages.rl.objectives.test_dapo import drawn

LOW, HIGH, GROUP, LONGEST = 0.1, 0.2, 4, 16


def value_of(name: str, part: Part, **more) -> float:
    params = RlParams(objective=name, clip_low=LOW, clip_high=HIGH, group=GROUP, max_tokens=LONGEST, **more)
    return OBJECTIVES[name].loss(part, Whole(float(part.mask_BT.sum()), float(len(part.mask_BT))), params).value.item()


def tokens(part: Part):
    """(row, place, log-probability, old one, advantage) of every token that counts."""
    for row, length in enumerate(part.mask_BT.sum(1).int().tolist()):
        for place in range(length):
            yield row, place, part.logp_BT[row, place].item(), part.old_BT[row, place].item(), part.advantage_B[row].item()


def surrogate(ratio: float, gain: float) -> float:
    return -min(ratio * gain, min(max(ratio, 1 - LOW), 1 + HIGH) * gain)


def test_grpo_and_dr_grpo():
    part = drawn(1)
    lengths = part.mask_BT.sum(1).tolist()
    losses = [(row, surrogate(math.exp(logp - old), gain)) for row, _, logp, old, gain in tokens(part)]
    assert value_of("grpo", part) == pytest.approx(sum(loss / lengths[row] for row, loss in losses) / 8, rel=1e-5)
    assert value_of("dr_grpo", part) == pytest.approx(sum(loss for _, loss in losses) / (8 * LONGEST), rel=1e-5)
    assert value_of("lite_ppo", part) == pytest.approx(sum(loss for _, loss in losses) / sum(lengths), rel=1e-5)


def test_gspo_has_one_ratio_an_answer():
    part = drawn(2)
    expected = 0.0
    for row in range(8):
        own = [logp - old for other, _, logp, old, _ in tokens(part) if other == row]
        expected += surrogate(math.exp(sum(own) / len(own)), part.advantage_B[row].item()) / 8
    assert value_of("gspo", part) == pytest.approx(expected, rel=1e-5)


def test_covariance_is_that_of_numpy_summed():
    generator = torch.Generator().manual_seed(0)
    logp, gains = torch.randn(50, generator=generator), torch.randn(50, generator=generator)
    both = torch.cov(torch.stack([logp, gains]), correction=0)[0, 1]
    assert torch.allclose(covariances(logp, gains).mean(), both, atol=1e-6)


def test_tokens_are_chosen_from_the_band_or_from_the_top():
    values = torch.tensor([0.2, 1.5, 9.0, 2.0, 4.9, -3.0])
    params = RlParams(cov_share=0.34, cov_low=1.0, cov_high=5.0)
    seen = {tuple(select_for_clip(values, params, torch.Generator().manual_seed(seed)).nonzero()[:, 0].tolist()) for seed in range(20)}
    assert seen == {(1, 3), (1, 4), (3, 4)}, "two of the three in the band"
    assert select_for_kl(values, params, torch.Generator()).tolist() == [False, False, True, False, True, False]
    assert not select_for_clip(values * 0, params, torch.Generator()).any()


def test_clip_cov_leaves_its_tokens_out_and_kl_cov_charges_them():
    part = drawn(4)
    selected = (torch.rand(part.mask_BT.shape, generator=torch.Generator().manual_seed(1)) < 0.3) & (part.mask_BT > 0)
    part = part._replace(selected_BT=selected)
    total = float(part.mask_BT.sum())
    clip = sum(surrogate(math.exp(logp - old), gain) for row, place, logp, old, gain in tokens(part) if not selected[row, place])
    assert value_of("clip_cov", part) == pytest.approx(clip / total, rel=1e-5)
    charged = sum(
        -math.exp(logp - old) * gain + 0.7 * (math.exp(logp - old) - 1 - (logp - old)) * bool(selected[row, place])
        for row, place, logp, old, gain in tokens(part)
    )
    assert value_of("kl_cov", part, cov_kl=0.7) == pytest.approx(charged / total, rel=1e-5)


def test_disco_raises_right_answers_above_the_hardest_wrong_ones():
    part = drawn(5)
    right = torch.tensor([True, False, False, True, True, True, True, True])  # the second group is all right and does not count
    part = part._replace(success_B=right)
    scores = [[logp for row, _, logp, *_ in tokens(part) if row == number] for number in range(4)]
    means = [sum(own) / len(own) for own in scores]
    tau = 0.3
    hardest = tau * math.log((math.exp(means[1] / tau) + math.exp(means[2] / tau)) / 2)
    all_tokens = list(tokens(part))
    kl = sum(old - logp for *_, logp, old, _ in all_tokens) / len(all_tokens)
    expected = -((means[0] + means[3]) / 2 - hardest) / 2 + 5.0 * max(kl - -0.5, 0) ** 2
    params = {"disco_tau": tau, "disco_beta": 5.0}
    # A delta below zero cannot be asked for: the old numbers are shifted instead, by the half nat.
    assert value_of("disco", part._replace(old_BT=part.old_BT + 0.5), disco_delta=0.0, **params) == pytest.approx(expected, rel=1e-4)
    assert value_of("disco", part, disco_delta=100.0, **params) == pytest.approx(-((means[0] + means[3]) / 2 - hardest) / 2, rel=1e-4)


def test_lipo_weighs_each_pair_by_what_its_order_is_worth():
    part = drawn(6)
    expected = 0.0
    for start in (0, 4):
        rewards = part.reward_B[start : start + 4].tolist()
        scores = [0.5 * sum(logp - old for row, _, logp, old, _ in tokens(part) if row == start + one) for one in range(4)]
        psi = [(reward - min(rewards)) / (max(rewards) - min(rewards)) for reward in rewards]
        rank = [1 + sum(other > score for other in scores) for score in scores]
        for one in range(4):
            for other in range(4):
                if rewards[one] > rewards[other]:
                    worth = abs(2 ** psi[one] - 2 ** psi[other]) * abs(1 / math.log2(1 + rank[one]) - 1 / math.log2(1 + rank[other]))
                    expected += worth * math.log1p(math.exp(-(scores[one] - scores[other]))) / 2
    assert value_of("lipo", part, lipo_beta=0.5) == pytest.approx(expected, rel=1e-4)

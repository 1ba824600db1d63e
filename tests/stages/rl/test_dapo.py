"""The loss against TRL's own and against a loop over tokens."""

import math

import numpy as np
import pytest
import torch

from stages.rl.dapo import advantages, dapo_loss, has_reward_variance
from stages.rl.logprobs import response_logprobs
from tests.support.tiny_models import random_prompts, tiny_model

LOW, HIGH = 0.2, 0.28
VOCABULARY, PAD = 64, 0


def looped(logp, old, gains, mask, low, high) -> tuple[float, int]:
    """Equation 8 of arXiv 2503.14476, one token at a time: (sum of the objective, tokens where the clip binds)."""
    total, binds = 0.0, 0
    for row in range(len(logp)):
        for place in range(len(logp[row])):
            if mask[row][place]:
                ratio = math.exp(logp[row][place] - old[row][place])
                plain = ratio * gains[row]
                clipped = min(max(ratio, 1 - low), 1 + high) * gains[row]
                total += min(plain, clipped)
                binds += clipped < plain
    return total, binds


def drawn(seed: int = 0, rows: int = 8, length: int = 11):
    generator = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(rows, length, generator=generator)
    logp = old + 0.4 * torch.randn(rows, length, generator=generator)
    lengths = torch.randint(1, length + 1, (rows,), generator=generator)
    mask = (torch.arange(length) < lengths[:, None]).float()
    return logp, old, torch.randn(rows, generator=generator), mask


def test_loss_equals_a_loop_over_tokens():
    logp, old, gains, mask = drawn()
    total, binds = looped(logp.tolist(), old.tolist(), gains.tolist(), mask.tolist(), LOW, HIGH)
    loss = dapo_loss(logp, old, gains, mask, LOW, HIGH, 100.0)
    assert float(loss.value) == pytest.approx(-total / 100, rel=1e-5)
    assert binds > 0 and float(loss.clipped) == pytest.approx(binds / float(mask.sum()))


def test_parts_of_a_step_add_up_to_the_whole():
    logp, old, gains, mask = drawn(3)
    tokens = mask.sum()
    whole = dapo_loss(logp, old, gains, mask, LOW, HIGH, tokens).value
    parts = [dapo_loss(logp[own], old[own], gains[own], mask[own], LOW, HIGH, tokens).value for own in (slice(0, 3), slice(3, 8))]
    assert torch.allclose(whole, sum(parts))


@pytest.mark.parametrize(("ratio", "gain", "learns"), [(1.27, 1, True), (1.29, 1, False), (0.79, -1, False), (0.81, -1, True)])
def test_the_clip_is_higher_than_it_is_low(ratio, gain, learns):
    logp = torch.tensor([[math.log(ratio)]], requires_grad=True)
    loss = dapo_loss(logp, torch.zeros(1, 1), torch.tensor([float(gain)]), torch.ones(1, 1), LOW, HIGH, 1.0)
    loss.value.backward()
    assert (float(logp.grad) != 0) == learns == (float(loss.clipped) == 0)


def test_advantages_equal_numpy():
    rewards = np.random.default_rng(0).normal(size=(5, 8))
    expected = (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, ddof=1, keepdims=True) + 1e-4)
    assert np.allclose(advantages(torch.tensor(rewards)).numpy(), expected)
    assert not advantages(torch.full((2, 4), 0.7)).any()


def test_groups_without_variance_are_told_by_a_tolerance():
    """0.1 + 0.2 and 0.3 differ in the last bit: that is no variance."""
    rewards = torch.tensor([[0.1 + 0.2, 0.3, 0.3, 0.3], [0.3, 0.3, 0.3, 0.4], [-1.0, -1.0, -1.0, -1.0]], dtype=torch.float64)
    assert float(rewards[0].std()) > 0
    assert has_reward_variance(rewards, 1e-6).tolist() == [False, True, False]
    assert has_reward_variance(rewards, 0.1).tolist() == [False, False, False]


@pytest.fixture(scope="module")
def trl_trainer(tmp_path_factory):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from tests.support.tiny_models import tiny_tokenizer

    arguments = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        loss_type="dapo",
        epsilon=LOW,
        epsilon_high=HIGH,
        beta=0.0,
        num_generations=4,
        per_device_train_batch_size=8,
        max_completion_length=16,
        use_cpu=True,
        bf16=False,
        report_to=[],
    )
    return GRPOTrainer(
        model=tiny_model(VOCABULARY),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["a"] * 8}),
        processing_class=tiny_tokenizer(),
    )


def test_loss_and_gradient_equal_those_of_trl(trl_trainer):
    """Two prompts of different lengths, four responses each; TRL runs prompt + response, we share the prompt."""
    prompts = random_prompts(2, VOCABULARY, 5, 9)
    flat = random_prompts(8, VOCABULARY, 3, 12, seed=2)
    gains = torch.randn(8, generator=torch.Generator().manual_seed(3))
    model = trl_trainer.model.eval()
    ours, mask = response_logprobs(model, prompts, [flat[:4], flat[4:]], PAD)
    old = ours.detach() + 0.3 * torch.randn(ours.shape, generator=torch.Generator().manual_seed(4))
    tokens = mask.sum()
    value = dapo_loss(ours, old, gains, mask, LOW, HIGH, tokens).value
    own = torch.autograd.grad(value, list(model.parameters()))

    width, length = max(map(len, prompts)), max(map(len, flat))
    repeated = [prompt for prompt in prompts for _ in range(4)]
    inputs = {
        "prompt_ids": torch.tensor([[PAD] * (width - len(p)) + p for p in repeated]),
        "prompt_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in repeated]),
        "completion_ids": torch.tensor([r + [PAD] * (length - len(r)) for r in flat]),
        "completion_mask": mask.long(),
        "advantages": gains,
        "old_per_token_logps": old,
        "num_items_in_batch": tokens,
    }
    reference = trl_trainer._compute_loss(model, inputs)
    theirs = torch.autograd.grad(reference, list(model.parameters()))
    assert value.item() == pytest.approx(reference.item(), rel=1e-4)
    assert max(float(gradient.abs().max()) for gradient in theirs) > 1e-2
    for left, right in zip(own, theirs, strict=True):
        assert torch.allclose(left, right, atol=1e-4)

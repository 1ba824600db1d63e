"""Sampler and trainer score the same distribution: at any temperature, under the constraint, in bfloat16."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.rl.distribution import PLAIN, Drawn, masks_along, sampler_logprobs, token_logprobs
from stages.rl.params import RlParams
from stages.rl.policy import open_policy
from stages.rl.rollouts import Group, Task
from stages.rl.update import response_masks
from stages.shared.core.errors import StageError
from stages.shared.generation.base import Completion, Sampling
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.slates.constraint import FREE, TokenMask
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.encoded import EncodedLayout
from tests.stages.shared.slates.test_constraint import TOKENIZER, constraint
from tests.stages.shared.slates.test_json_constraint import CATALOG, ENCODED, SLATE
from tests.support.chat_models import chat_tokenizer
from tests.support.tiny_models import random_prompts, tiny_model

PAD, END = TOKENIZER.pad_token_id, TOKENIZER.eos_token_id
VOCABULARY = -(-len(TOKENIZER) // 64) * 64


def by_hand(logits: list[float], token: int, temperature: float, allowed: list[int]) -> float:
    """log of exp(l_token / T) / sum over allowed of exp(l / T)."""
    return logits[token] / temperature - math.log(sum(math.exp(logits[one] / temperature) for one in allowed))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize(
    ("mask", "allowed"),
    [
        (FREE, range(6)),
        (TokenMask(True, [1, 4]), [1, 4]),
        (TokenMask(False, [0, 5]), [1, 2, 3, 4]),
        (TokenMask(False, np.array([0, 2])), [1, 3, 4, 5]),
    ],
)
def test_a_token_is_scored_among_the_allowed_ones_at_the_temperature(temperature, mask, allowed):
    logits = torch.randn(1, 2, 6, generator=torch.Generator().manual_seed(0))
    logp, _ = token_logprobs(logits, torch.tensor([[3, 4]]), Drawn(temperature, [FREE, mask]), [2])
    assert logp[0, 0].item() == pytest.approx(by_hand(logits[0, 0].tolist(), 3, temperature, range(6)), abs=1e-5)
    assert float(logp[0, 1]) == pytest.approx(by_hand(logits[0, 1].tolist(), 4, temperature, allowed), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_forced_token_has_probability_one_and_no_gradient(dtype):
    logits = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    logp, _ = token_logprobs(logits, torch.tensor([[2, 7, 3]]), Drawn(0.6, [FREE, TokenMask(True, [7])]), [2])
    logp.sum().backward()
    assert logp.dtype == torch.float32 and logp[0, 1].item() == 0.0
    assert not logits.grad[0, 1].any() and logits.grad[0, 0].any() and bool(torch.isfinite(logits.grad).all())


def sampled(temperature: float, enforced: bool, dtype=torch.float32):
    model = tiny_model(VOCABULARY, PAD, END).to(dtype)
    constraints = [constraint(count, enforced=enforced) for count in (5, 3)]
    prompts = random_prompts(2, len(TOKENIZER), 5, 9)
    engine = TransformersEngine(model, PAD, END, batch_size=3)
    completions = engine.generate(prompts, Sampling(max_tokens=70, temperature=temperature, samples=3, seed=4), constraints)
    pairs = [(one, completion) for one, own in zip(constraints, completions, strict=True) for completion in own]
    masks = [mask for one, completion in pairs for mask in masks_along(one, completion.token_ids)] if enforced else None
    return model, prompts, completions, Drawn(temperature, masks)


def scored(model, prompts, completions, drawn: Drawn, form: str = "cache", chunk: int = 0):
    policy = open_policy(model, RlParams(shared_prefix=form, logprob_chunk=chunk))
    return policy.score(prompts, [[one.token_ids for one in own] for own in completions], PAD, drawn)


@pytest.mark.parametrize(("form", "chunk"), [("cache", 0), ("tree", 0), ("tree", 7), ("none", 0)])
@pytest.mark.parametrize(("temperature", "enforced"), [(1.0, False), (0.7, False), (1.4, True), (1.0, True)])
def test_sampler_and_trainer_agree(temperature, enforced, form, chunk):
    model, prompts, completions, drawn_as = sampled(temperature, enforced)
    logp, mask, entropy, _ = scored(model, prompts, completions, drawn_as, form, chunk)
    plain = scored(model, prompts, completions, PLAIN, form, chunk).logp
    if entropy is not None:
        assert bool(torch.isfinite(entropy).all()) and (not enforced or bool((entropy[mask > 0] == 0).any()))
    gaps, others = [], []
    for row, one in enumerate(one for own in completions for one in own):
        drawn = torch.tensor(sampler_logprobs(one, temperature, enforced))
        gaps.append(float((logp[row][mask[row] > 0] - drawn).abs().max()))
        others.append(float((plain[row][mask[row] > 0] - drawn).abs().max()))
    assert max(gaps) < 1e-3
    assert (max(others) > 0.1) == (temperature != 1 or enforced), "the model's own distribution is another"


def test_the_last_candidate_is_forced_and_says_nothing():
    model, prompts, completions, drawn_as = sampled(1.0, True)
    logp, mask, *_ = scored(model, prompts, completions, drawn_as)
    rows = [one for own in completions for one in own]
    finished = [row for row, one in enumerate(rows) if one.token_ids[-1] == END]
    assert finished, "no answer was finished: the test is weaker than meant"
    for row in finished:
        last = len(rows[row].token_ids) - 1
        # The end, and before it the one name that is left: nothing was chosen there, so there is no entropy.
        assert logp[row, last - 1 : last + 1].tolist() == [0.0, 0.0] == rows[row].drawn_logprobs[-2:]
        assert rows[row].logprobs[-2] < 0
    gradients = torch.autograd.grad((logp * mask).sum(), list(model.parameters()))
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_in_bfloat16_the_two_are_near_and_finite():
    model, prompts, completions, drawn_as = sampled(0.8, True, torch.bfloat16)
    logp, mask, *_ = scored(model, prompts, completions, drawn_as)
    drawn = torch.nn.utils.rnn.pad_sequence([torch.tensor(one.drawn_logprobs) for own in completions for one in own], batch_first=True)
    gap = ((logp - drawn).abs() * mask).sum() / mask.sum()
    assert bool(torch.isfinite(logp).all()) and 1e-4 < float(gap) < 0.2


def test_an_engine_without_these_numbers_is_refused_where_they_differ():
    one = Completion([3, 4], [-1.0, -2.0])
    assert sampler_logprobs(one, 1.0, False) == [-1.0, -2.0]
    assert sampler_logprobs(replace(one, drawn_logprobs=[-0.5, -0.1]), 0.5, True) == [-0.5, -0.1]
    for temperature, constrained in ((0.5, False), (1.0, True)):
        with pytest.raises(StageError, match=r"rl\.temperature"):
            sampler_logprobs(one, temperature, constrained)


def test_a_budget_of_thoughts_is_scored_as_it_was_sampled_without_rl_constrained():
    """Held to its budget, a thought that goes on is ended by force: probability 1 and no gradient, whatever the model would have said."""
    options = ENCODED["letters", True].layout.options.model_copy(update={"think_tokens": 3})
    encoded = EncodedLayout(ChatLayout(CATALOG, options), chat_tokenizer())
    [held] = encoded.constraints([SLATE], enforced=False)
    end = held.layout.think_end
    completions = [Completion([5, 6, 7, end, 8], [], drawn_logprobs=[-1.0] * 5)]
    masks = response_masks([Group(Task([1], held, 0, (0,)), completions, [], [])])
    assert masks is not None and [mask.allow for mask in masks] == [False, False, False, True, False] and masks[3].ids == [end]
    free = constraint(4, enforced=False)
    assert response_masks([Group(Task([1], free, 0, (0,)), completions, [], [])]) is None

"""The shared prompt changes nothing: log-probabilities and gradients equal those of prompt + response, row by row."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from stages.rl.logprobs import response_logprobs
from stages.shared.generation.base import Sampling
from stages.shared.generation.transformers_engine import TransformersEngine
from tests.support.tiny_models import random_prompts, tiny_model

VOCABULARY, PAD, END = 64, 0, 1


def qwen() -> Qwen2ForCausalLM:
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48
    )
    config.initializer_range = 0.2
    return Qwen2ForCausalLM(config).eval()


MODELS = {"llama": lambda: tiny_model(VOCABULARY), "qwen2": qwen}


def plain_logprobs(model, prompts, responses, length: int) -> torch.Tensor:
    """One row at a time without cache, padding or mask: [P * G, length], zero after a response's end."""
    rows = []
    for prompt, own in zip(prompts, responses, strict=True):
        for response in own:
            logits = model(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
            logp = torch.log_softmax(logits, dim=-1).gather(-1, torch.tensor(response)[:, None])[:, 0]
            rows.append(torch.nn.functional.pad(logp, (0, length - len(response))))
    return torch.stack(rows)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", ["eval", "train", "checkpointed"])
def test_equal_to_the_plain_forward_pass(name, mode):
    model = MODELS[name]().train(mode != "eval")
    if mode == "checkpointed":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    prompts = random_prompts(3, VOCABULARY, 4, 12, seed=5)
    assert len({len(prompt) for prompt in prompts}) > 1
    flat = random_prompts(6, VOCABULARY, 1, 9, seed=6)
    responses = [flat[:2], flat[2:4], flat[4:]]
    logp, mask = response_logprobs(model, prompts, responses, PAD, shared_prefix=mode != "checkpointed")
    assert mask.sum(1).tolist() == [float(len(response)) for response in flat]
    expected = plain_logprobs(model, prompts, responses, logp.shape[1])
    assert torch.allclose(logp * mask, expected, atol=1e-4)

    weights = torch.randn(logp.shape, generator=torch.Generator().manual_seed(0)) * mask
    parameters = list(model.parameters())
    ours = torch.autograd.grad((logp * weights).sum(), parameters)
    theirs = torch.autograd.grad((expected * weights).sum(), parameters)
    scale = max(float(gradient.abs().max()) for gradient in theirs)
    for left, right in zip(ours, theirs, strict=True):
        assert torch.allclose(left / scale, right / scale, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_sampler_and_the_trainer_agree(name):
    """Rollout log-probabilities are the trainer's: else the importance ratio is not one before the first step."""
    model = MODELS[name]()
    prompts = random_prompts(3, VOCABULARY, 4, 9, seed=8)
    engine = TransformersEngine(model, PAD, END, batch_size=5)
    completions = engine.generate(prompts, Sampling(max_tokens=12, temperature=1.0, samples=4, seed=3))
    responses = [[completion.token_ids for completion in own] for own in completions]
    logp, mask = response_logprobs(model, prompts, responses, PAD)
    for row, completion in enumerate(completion for own in completions for completion in own):
        assert torch.allclose(logp[row][mask[row] > 0], torch.tensor(completion.logprobs), atol=1e-4)
    assert len({len(response) for own in responses for response in own}) > 1, "all responses of one length: the test is weaker than meant"

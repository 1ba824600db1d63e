"""The shared prompt changes nothing: log-probabilities and gradients equal those of prompt + response, row by row."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from stages.rl.distribution import Drawn
from stages.rl.logprobs import response_logprobs
from stages.rl.params import RlParams
from stages.rl.policy import open_policy
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


def plain_logprobs(model, prompts, responses, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One row at a time without cache, padding or mask: log-probabilities and entropies [P * G, length], zero after a response's end."""
    rows, entropies = [], []
    for prompt, own in zip(prompts, responses, strict=True):
        for response in own:
            logits = model(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
            logps = torch.log_softmax(logits, dim=-1)
            for kept, values in (
                (rows, logps.gather(-1, torch.tensor(response)[:, None])[:, 0]),
                (entropies, -(logps.exp() * logps).sum(-1)),
            ):
                kept.append(torch.nn.functional.pad(values, (0, length - len(response))))
    return torch.stack(rows), torch.stack(entropies)


def scaled(gradients) -> torch.Tensor:
    """All of them in one, against the largest."""
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    return flat / flat.abs().max()


def learnt(model) -> list[torch.Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


FORMS = [("cache", "eval"), ("cache", "train"), *((form, mode) for form in ("tree", "none") for mode in ("eval", "train", "checkpointed"))]


@pytest.mark.parametrize("adapted", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("form", "mode"), FORMS)
def test_equal_to_the_plain_forward_pass(form, mode, name, adapted):
    """Uneven prompts and responses, one token alone among them; the reference has no padding, mask, cache or chunk."""
    model = MODELS[name]()
    lora = {"rank": 4, "targets": ["q_proj", "v_proj", "down_proj"]} if adapted else {}
    options = {"gradient_checkpointing": mode == "checkpointed", "logprob_chunk": 0 if form == "cache" else 5, "lora": lora}
    policy = open_policy(model, RlParams(shared_prefix=form, **options), token_ids=[3, 9, 33])
    if adapted:
        with torch.no_grad():
            for parameter in learnt(model):
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4))
    model.train(mode != "eval")
    prompts = random_prompts(3, VOCABULARY, 4, 12, seed=5)
    assert len({len(prompt) for prompt in prompts}) > 1
    flat = [*random_prompts(7, VOCABULARY, 1, 9, seed=6), [7], [8, 9]]
    assert len(set(map(len, flat[:3]))) > 1
    responses = [flat[:3], flat[3:6], flat[6:]]
    scores = policy.score(prompts, responses, PAD)
    logp, mask = scores.logp, scores.mask
    assert policy.form == form and mask.sum(1).tolist() == [float(len(response)) for response in flat]
    expected, entropy = plain_logprobs(model, prompts, responses, logp.shape[1])
    assert torch.allclose(logp * mask, expected, atol=1e-5)
    assert scores.entropy is None if form == "cache" else torch.allclose(scores.entropy, entropy, atol=1e-5)

    weights = torch.randn(logp.shape, generator=torch.Generator().manual_seed(0)) * mask
    ours, theirs = (torch.autograd.grad((values * weights).sum(), learnt(model)) for values in (logp, expected))
    assert (len(ours) < len(list(model.parameters()))) == adapted
    assert torch.allclose(scaled(ours), scaled(theirs), atol=1e-5)


@pytest.mark.parametrize("form", ["cache", "tree", "none"])
def test_what_stands_beside_the_tokens_drawn(form):
    """Log-probabilities of other tokens at every place, at a temperature; in chunks where the form has them."""
    model, beside = MODELS["qwen2"](), (3, 40, 41)
    policy = open_policy(model, RlParams(shared_prefix=form, logprob_chunk=0 if form == "cache" else 4))
    prompts, responses = [[5, 6, 7], [9, 8]], [[[10, 3], [11, 12, 13]], [[40]]]
    scores = policy.score(prompts, responses, PAD, Drawn(0.7, beside=beside))
    assert scores.beside is not None and scores.beside.shape == (3, 3, 3)
    rows = [(prompt, own) for prompt, group in zip(prompts, responses, strict=True) for own in group]
    for (prompt, own), logp, others in zip(rows, scores.logp, scores.beside, strict=True):
        logits = model(input_ids=torch.tensor([[*prompt, *own]]), use_cache=False).logits[0, len(prompt) - 1 : -1] / 0.7
        expected = torch.log_softmax(logits, dim=-1)
        assert torch.allclose(others[: len(own)], expected[:, list(beside)], atol=1e-5)
        assert torch.allclose(logp[: len(own)], expected[range(len(own)), own], atol=1e-5)
    assert torch.allclose(scores.beside[0, 1, 0], scores.logp[0, 1]), "one token both ways"
    assert torch.autograd.grad(scores.beside[..., 1].sum(), learnt(model), allow_unused=True)[0].abs().max() > 0


@pytest.mark.parametrize("name", MODELS)
def test_the_sampler_and_the_trainer_agree(name):
    """Rollout log-probabilities are the trainer's: else the importance ratio is not one before the first step."""
    model = MODELS[name]()
    prompts = random_prompts(3, VOCABULARY, 4, 9, seed=8)
    engine = TransformersEngine(model, PAD, END, batch_size=5)
    completions = engine.generate(prompts, Sampling(max_tokens=12, temperature=1.0, samples=4, seed=3))
    responses = [[completion.token_ids for completion in own] for own in completions]
    logp, mask, *_ = response_logprobs(model, prompts, responses, PAD)
    for row, completion in enumerate(completion for own in completions for completion in own):
        assert torch.allclose(logp[row][mask[row] > 0], torch.tensor(completion.logprobs), atol=1e-4)
    assert len({len(response) for own in responses for response in own}) > 1, "all responses of one length: the test is weaker than meant"

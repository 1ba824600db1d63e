import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import Qwen3Config, Qwen3ForCausalLM

from stages.shared.core.errors import StageError
from stages.shared.generation.base import Sampling
from stages.shared.generation.slot_cache import ROOM
from stages.shared.generation.transformers_engine import TransformersEngine, choose
from tests.support.tiny_models import random_prompts, tiny_model

VOCABULARY, PAD, END = 96, 0, 1
MODEL = tiny_model(VOCABULARY)
PROMPTS = random_prompts(13, VOCABULARY)


def tiny_qwen3():
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    config = Qwen3Config(vocab_size=VOCABULARY, intermediate_size=96, initializer_range=0.2, pad_token_id=PAD, eos_token_id=END, **sizes)
    return Qwen3ForCausalLM(config).eval()


def generated(model, prompt: list[int], max_tokens: int) -> list[int]:
    """By transformers itself, one prompt alone: no padding, no batch, its own cache."""
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False, pad_token_id=PAD, eos_token_id=END
    )
    return output[0, len(prompt) :].tolist()


def teacher_forced(model, prompt: list[int], completion: list[int]) -> list[float]:
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
    return [float(logprobs[len(prompt) + place - 1, token]) for place, token in enumerate(completion)]


@pytest.mark.parametrize("model", [MODEL, tiny_qwen3()], ids=["llama", "qwen3"])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_greedy_equals_generate(model, batch_size):
    engine = TransformersEngine(model, PAD, END, batch_size)
    completions = [one for (one,) in engine.generate(PROMPTS, Sampling(max_tokens=ROOM + 20))]
    assert [one.token_ids for one in completions] == [generated(model, prompt, ROOM + 20) for prompt in PROMPTS]
    assert any(one.token_ids[-1] == END for one in completions), "no row ended early: compaction was not tried"
    assert any(len(one.token_ids) == ROOM + 20 for one in completions)


@pytest.mark.parametrize("temperature,top_p", [(0.0, 1.0), (1.3, 1.0), (0.7, 0.8)])
def test_logprobs_are_those_of_a_forward_pass_at_temperature_one(temperature, top_p):
    engine = TransformersEngine(MODEL, PAD, END, batch_size=10)
    completions = engine.generate(PROMPTS, Sampling(40, temperature, top_p, samples=3, seed=5))
    for prompt, group in zip(PROMPTS, completions, strict=True):
        assert len(group) == 3
        for one in group:
            assert END not in one.token_ids[:-1]
            np.testing.assert_allclose(one.logprobs, teacher_forced(MODEL, prompt, one.token_ids), atol=1e-4)


def test_what_is_drawn_depends_on_the_seed_and_not_on_the_batch():
    def run(batch_size: int, seed: int):
        completions = TransformersEngine(MODEL, PAD, END, batch_size).generate(PROMPTS, Sampling(20, 1.0, samples=4, seed=seed))
        return [[one.token_ids for one in group] for group in completions]

    assert run(5, 3) == run(5, 3) == run(64, 3)
    assert run(64, 3) != run(64, 4)
    first = run(64, 3)[0]
    assert len({tuple(tokens) for tokens in first}) == 4


def test_samples_follow_the_model():
    prompt, temperature = PROMPTS[0], 1.5
    completions = TransformersEngine(MODEL, PAD, END, 512).generate([prompt], Sampling(1, temperature, samples=4000, seed=1))[0]
    with torch.no_grad():
        expected = (MODEL(torch.tensor([prompt])).logits[0, -1] / temperature).softmax(-1).numpy().astype(float) * 4000
    counts = np.bincount([one.token_ids[0] for one in completions], minlength=VOCABULARY)
    common = expected >= 5
    observed = np.append(counts[common], counts[~common].sum())
    assert chisquare(observed, np.append(expected[common], expected[~common].sum()) * observed.sum() / expected.sum()).pvalue > 1e-3


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    probs = torch.tensor([0.05, 0.5, 0.15, 0.3])
    draws = torch.linspace(0, 1 - 1e-9, 400, dtype=torch.float64)
    chosen = choose(probs.log().expand(400, -1), draws, Sampling(1, temperature=1.0, top_p=0.7))
    counts = np.bincount(chosen.numpy(), minlength=4)
    assert counts[[0, 2]].tolist() == [0, 0]
    assert counts[1] / 400 == pytest.approx(0.5 / 0.8, abs=0.01)
    greedy = choose(probs.log().expand(400, -1), draws, Sampling(1, temperature=1.0, top_p=1e-6))
    assert set(greedy.tolist()) == {1}


def test_model_is_left_in_the_mode_it_was_in():
    MODEL.train()
    TransformersEngine(MODEL, PAD, END).generate(PROMPTS[:1], Sampling(1))
    assert MODEL.training
    MODEL.eval()


def test_no_prompts_give_no_completions():
    assert TransformersEngine(MODEL, PAD, END).generate([], Sampling(4)) == []


@pytest.mark.parametrize("prompts,message", [([[5], []], "prompt 1 is empty"), ([[5] * 500], "512 positions")])
def test_prompts_that_cannot_be_continued(prompts, message):
    with pytest.raises(StageError, match=message):
        TransformersEngine(MODEL, PAD, END).generate(prompts, Sampling(13))

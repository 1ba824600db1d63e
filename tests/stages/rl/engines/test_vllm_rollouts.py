"""vLLM beside a policy that learns: it draws from the weights that it was sent last, and says with what probability."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from stages.rl.distribution import Drawn, masks_along
from stages.rl.engines.beside import EngineBeside
from stages.rl.logprobs import response_logprobs
from stages.rl.params import RlParams
from stages.rl.policy import Policy, open_policy
from stages.shared.core.errors import StageError
from stages.shared.generation.base import Completion, Sampling
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.lm.models import load_model, load_tokenizer
from tests.stages.shared.slates.test_constraint import constraints
from tests.support.tiny_models import random_prompts, tiny_folder

ROOT = Path(__file__).parents[4]
PROMPTS = random_prompts(6, 300)
HOT = Sampling(20, temperature=0.7, samples=3, seed=5)

pytestmark = pytest.mark.slow


class Pair(NamedTuple):
    """vLLM and transformers, on one policy. temperature: that its parameters name."""

    policy: Policy
    vllm: EngineBeside
    transformers: TransformersEngine


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Input and output of this model are one matrix: vLLM's CPU kernels hold a copy of it that reloading alone does not replace."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        folder = tiny_folder(tmp_path_factory.mktemp("vllm") / "model")
        values = {"threads": 1, "rollout": {"engine": "vllm", "kv_cache_gb": 0.25}, "max_tokens": 64, "batch_size": 16, "save_steps": 2}
        params = RlParams.model_validate(values)
        policy, tokenizer = open_policy(load_model(folder), params), load_tokenizer(folder)
        engine = EngineBeside(policy, params, folder, max(map(len, PROMPTS)))
        engine.take_weights()
        yield Pair(policy, engine, TransformersEngine(policy.module, tokenizer.pad_token_id, tokenizer.eos_token_id))
        engine.close()


def tokens(completions: list[list[Completion]]) -> list[list[list[int]]]:
    return [[one.token_ids for one in samples] for samples in completions]


def test_greedy_rollouts_are_those_of_transformers_before_and_after_an_update(pair: Pair) -> None:
    before = tokens(pair.vllm.generate(PROMPTS, Sampling(16)))
    assert before == tokens(pair.transformers.generate(PROMPTS, Sampling(16)))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in pair.policy.module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    assert tokens(pair.vllm.generate(PROMPTS, Sampling(16))) == before, "an update arrives when it is sent"
    pair.vllm.take_weights()
    after = tokens(pair.vllm.generate(PROMPTS, Sampling(16)))
    assert after == tokens(pair.transformers.generate(PROMPTS, Sampling(16)))
    assert sum(one != other for one, other in zip(before, after, strict=True)) >= 4, "the update changes what is said"


def test_a_seed_decides_what_is_drawn(pair: Pair) -> None:
    first, again = (pair.vllm.generate(PROMPTS, HOT) for _ in range(2))
    assert first == again
    assert len({tuple(row) for samples in tokens(first) for row in samples}) == 18, "samples of a prompt differ"
    assert tokens(pair.vllm.generate(PROMPTS, Sampling(20, temperature=0.7, samples=3, seed=6))) != tokens(first)


@pytest.mark.parametrize("constrained", [False, True])
def test_the_sampler_says_what_the_trainer_finds(pair: Pair, constrained: bool) -> None:
    """In the distribution drawn from: at a temperature, and under the constraint, where a forced token has probability 1."""
    rules = constraints(6) if constrained else None
    drawn = pair.vllm.generate(PROMPTS, Sampling(40, temperature=0.7, samples=3, seed=2), rules)
    masks = (
        [mask for samples, rule in zip(drawn, rules, strict=True) for one in samples for mask in masks_along(rule, one.token_ids)]
        if rules
        else None
    )
    with torch.no_grad():
        logp_BT, *_ = response_logprobs(pair.policy.module, PROMPTS, tokens(drawn), 0, Drawn(0.7, masks))
    flat = [one for samples in drawn for one in samples]
    for row, one in zip(logp_BT, flat, strict=True):
        assert one.logprobs == [] and len(one.drawn_logprobs) == len(one.token_ids)
        np.testing.assert_allclose(one.drawn_logprobs, row[: len(one.token_ids)], atol=1e-3)
    assert not constrained or any(value == 0 for one in flat for value in one.drawn_logprobs)


def test_an_engine_that_was_killed_is_named(pair: Pair) -> None:
    """The last test: it ends the engine."""
    os.kill(pair.vllm.process.pid, signal.SIGKILL)
    message = (
        r"the rollout engine of process 0 \(vllm, pid \d+\) was ended by signal 9 \(SIGKILL\); .*rl.rollout.kv_cache_gb.*every 2 steps"
    )
    with pytest.raises(StageError, match=message):
        pair.vllm.generate(PROMPTS, HOT)

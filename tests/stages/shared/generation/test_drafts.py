"""Guesses change how many tokens a pass yields, and nothing else: against a loop that runs the whole sequence for every token."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.shared.core.errors import StageError
from stages.shared.generation.base import Completion, Sampling
from stages.shared.generation.slot_cache import ROOM, Slots, slot_cache
from stages.shared.generation.transformers_engine import PASS, TransformersEngine, apply_masks, best_width, choose
from stages.shared.slates.constraint import ConstraintState, PermutationConstraint
from tests.stages.shared.slates.test_constraint import TOKENIZER, constraint
from tests.support.tiny_models import random_prompts, tiny_model

WORDS = constraint(1).layout
MODEL = tiny_model(len(TOKENIZER), TOKENIZER.pad_token_id, TOKENIZER.eos_token_id)
PROMPTS = random_prompts(7, len(TOKENIZER), shortest=1, longest=30)


@dataclass
class Told(ConstraintState):
    """Is told what will be said, in part: its guesses are right for a while, then wrong."""

    truth: list[int] = field(default_factory=list)
    said: int = 0

    def advance(self, token: int) -> None:
        super().advance(token)
        self.said += 1

    def draft(self) -> list[int]:
        right = self.truth[self.said : self.said + self.said % 5]
        return [*right, *[WORDS.think_end] * (self.said % 3)]


@dataclass(frozen=True)
class Teller(PermutationConstraint):
    truth: list[int] = field(default_factory=list)

    def start(self) -> Told:
        return Told(self, thinking=self.reasoning, truth=self.truth)


def plain(prompt: list[int], sampling: Sampling, rule: PermutationConstraint, place: int, sample: int) -> Completion:
    state, said, logprobs = rule.start(), [], []
    draws = np.random.default_rng([sampling.seed, place, sample]).random(sampling.max_tokens)
    while len(said) < sampling.max_tokens and WORDS.end not in said:
        with torch.no_grad():
            own = MODEL(torch.tensor([prompt + said])).logits[:, -1].log_softmax(-1)
        token = int(choose(apply_masks(own, [state.mask()]), torch.tensor(draws[len(said)])[None], sampling)[0])
        state.advance(token)
        said.append(token)
        logprobs.append(float(own[0, token]))
    return Completion(said, logprobs)


@pytest.mark.parametrize("reasoning", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_completions_are_those_of_a_token_a_pass(temperature, reasoning):
    sampling = Sampling(40, temperature, samples=2, seed=3)
    constraints = [constraint(2 + place % 3, "sids" if place % 2 else "letters", reasoning) for place in range(len(PROMPTS))]
    expected = [
        [plain(prompt, sampling, one, place, sample) for sample in range(2)]
        for place, (prompt, one) in enumerate(zip(PROMPTS, constraints, strict=True))
    ]
    engine = TransformersEngine(MODEL, TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, batch_size=5)
    tellers = [Teller(**vars(one), truth=completions[0].token_ids) for one, completions in zip(constraints, expected, strict=True)]
    for asked in (constraints, tellers):
        for got, wanted in zip(engine.generate(PROMPTS, sampling, asked), expected, strict=True):
            assert [one.token_ids for one in got] == [one.token_ids for one in wanted]
            for one, other in zip(got, wanted, strict=True):
                np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


def test_forced_tokens_take_no_pass_of_their_own(monkeypatch):
    """Two candidates that differ from the second code on, no reasoning: 13 tokens, of which one is a choice."""
    passes = []
    forward = TransformersEngine._forward
    monkeypatch.setattr(TransformersEngine, "_forward", lambda *args: (passes.append(args[3]), forward(*args))[1])
    engine = TransformersEngine(MODEL, TOKENIZER.pad_token_id, TOKENIZER.eos_token_id)
    [[one]] = engine.generate(PROMPTS[:1], Sampling(40), [constraint(2, "sids", reasoning=False)])
    assert len(one.token_ids) == 13 and len(passes) <= 5


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_the_width_is_the_best_by_brute_force(lengths):
    done = {width: sum(min(length, width) for length in lengths) / (PASS + width) for width in range(1, 10)}
    assert done[best_width(lengths)] == pytest.approx(max(done.values()))


def test_rows_of_the_cache_grow_by_themselves():
    slots = Slots()
    cache = slot_cache(slots)
    keys = torch.randn(3, 2, 5 + ROOM + 9, 4)
    slots.stop = 5
    cache.update(keys[:, :, :5], -keys[:, :, :5], 0)
    held = torch.tensor([3, 5, 4])
    for _ in range(ROOM + 4):  # two tokens are written a pass, one is kept
        slots.at_BT = held[:, None] + torch.arange(2)
        slots.stop = int(held.max()) + 2
        new = torch.stack([keys[row, :, at] for row, at in enumerate(slots.at_BT)])
        got, values = cache.update(new, -new, 0)
        held = held + 1
        for row, length in enumerate(held.tolist()):
            assert torch.equal(got[row, :, :length], keys[row, :, :length]) and torch.equal(values[row], -got[row])
    cache.batch_select_indices(torch.tensor([2, 0]))
    assert torch.equal(cache.layers[0].keys[1, :, : held[0]], keys[0, :, : held[0]])


def test_a_window_that_is_too_small_is_said():
    class Config:
        max_position_embeddings, sliding_window, layer_types = 512, 16, ["sliding_attention", "full_attention"]

    class Windowed:
        config = Config

    with pytest.raises(StageError, match="sees 16 tokens at once and 25 are needed"):
        TransformersEngine(Windowed, 0, 1).generate([[5] * 5], Sampling(20))

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
from stages.shared.slates.constraint import DRAFT, ConstraintState, LayoutTokenIds, PermutationConstraint
from stages.shared.slates.prompts import END, LETTERS, STEP_BEST, STEP_MATCH, THINK_END, order_of
from stages.shared.slates.sids import SID_BEGIN, sid_text
from tests.support.tiny_models import random_prompts, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
WORDS = LayoutTokenIds.of(TOKENIZER)
SIDS = TOKENIZER([sid_text([first, 0, second, 1]) for first, second in ((1, 0), (1, 2), (5, 3), (6, 3))], add_special_tokens=False)[
    "input_ids"
]
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
        return [*right, *[WORDS.close] * (self.said % 3)]


@dataclass(frozen=True)
class Teller(PermutationConstraint):
    truth: list[int] = field(default_factory=list)

    def start(self) -> Told:
        return Told(self, thinking=self.reasoning, truth=self.truth)


def plain(prompt: list[int], sampling: Sampling, constraint: PermutationConstraint, place: int, sample: int) -> Completion:
    state, said, logprobs = constraint.start(), [], []
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
    constraints = [PermutationConstraint(WORDS, SIDS[: 2 + place % 3], reasoning) for place in range(len(PROMPTS))]
    expected = [
        [plain(prompt, sampling, constraint, place, sample) for sample in range(2)]
        for place, (prompt, constraint) in enumerate(zip(PROMPTS, constraints, strict=True))
    ]
    engine = TransformersEngine(MODEL, TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, batch_size=5)
    tellers = [
        Teller(WORDS, constraint.candidates, reasoning, own[0].token_ids) for constraint, own in zip(constraints, expected, strict=True)
    ]
    for asked in (constraints, tellers):
        for got, wanted in zip(engine.generate(PROMPTS, sampling, asked), expected, strict=True):
            assert [one.token_ids for one in got] == [one.token_ids for one in wanted]
            for one, other in zip(got, wanted, strict=True):
                np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


def test_forced_tokens_take_no_pass_of_their_own(monkeypatch):
    """Two candidates apart at the first code, no reasoning: 13 tokens, of which two are a choice."""
    passes = []
    forward = TransformersEngine._forward
    monkeypatch.setattr(TransformersEngine, "_forward", lambda *args: (passes.append(args[3]), forward(*args))[1])
    engine = TransformersEngine(MODEL, TOKENIZER.pad_token_id, TOKENIZER.eos_token_id)
    [[one]] = engine.generate(PROMPTS[:1], Sampling(40), [PermutationConstraint(WORDS, [SIDS[0], SIDS[2]], False)])
    assert len(one.token_ids) == 13 and len(passes) <= 4


def said_so_far(text: str, reasoning: bool = True) -> ConstraintState:
    state = PermutationConstraint(WORDS, SIDS, reasoning).start()
    for token in TOKENIZER.encode(text, add_special_tokens=False):
        state.advance(token)
    return state


def words_of(tokens: list[int]) -> str:
    return TOKENIZER.decode(tokens, skip_special_tokens=False)


@given(st.lists(st.integers(0, 31), min_size=4, max_size=4, unique=True))
def test_the_answer_that_follows_its_own_relevances_is_guessed_to_the_end(relevances):
    thought = STEP_MATCH + "".join(f"{letter} s{relevance}" for letter, relevance in zip(LETTERS, relevances, strict=False))
    thought += f"{STEP_BEST}{LETTERS[order_of(relevances)[0]]}{THINK_END}"
    answer = "".join(f" s{relevances[rank]}{LETTERS[rank]}" + words_of(SIDS[rank]) for rank in order_of(relevances)) + END
    rest = TOKENIZER.encode(answer, add_special_tokens=False)
    state = said_so_far(thought)
    while rest:
        guess = state.draft()
        assert guess == rest[: len(guess)] and len(guess) <= DRAFT
        assert guess or rest == [WORDS.end]
        for token in rest[: len(guess) + 1]:
            assert token in state.mask().ids
            state.advance(token)
        rest = rest[len(guess) + 1 :]


def test_what_is_guessed_while_thinking():
    assert words_of(said_so_far(f"{STEP_MATCH} A s3").draft()) == " B"
    assert said_so_far(f"{STEP_MATCH} A s3 B s4 C s9 D s1").draft() == []
    assert said_so_far(f"{STEP_BEST} C co3{SID_BEGIN}").draft() == SIDS[2][1:]
    assert said_so_far(f" 2{SID_BEGIN}").draft() == [] == said_so_far(" 2").draft()


def test_a_state_and_its_copy_go_their_own_ways():
    state = said_so_far(f"{STEP_MATCH} A s3")
    twin = state.copy()
    twin.advance(WORDS.relevances[7])
    assert state == said_so_far(f"{STEP_MATCH} A s3") != twin


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

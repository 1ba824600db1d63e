"""Under the constraint any model, however wild, answers with a permutation; what it may choose stays its own choice."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.shared.generation.base import Sampling
from stages.shared.generation.transformers_engine import TransformersEngine, apply_masks
from stages.shared.lm.models import load_model
from stages.shared.slates.answers import AnswerReader
from stages.shared.slates.constraint import ConstraintState, LayoutTokenIds, PermutationConstraint
from stages.shared.slates.prompts import END, LETTERS, STEP_MATCH, THINK_END
from stages.shared.slates.sids import sid_text
from tests.support.tiny_models import random_prompts, tiny_folder, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
WORDS = LayoutTokenIds.of(TOKENIZER)
READER = AnswerReader(TOKENIZER)
# neighbours share prefixes of one, two and three codes
CODES = [[1, 0, 0, 0], [1, 2, 0, 0], [1, 2, 3, 0], [1, 2, 3, 4], [5, 0, 0, 0]]
SIDS = TOKENIZER([sid_text(codes) for codes in CODES], add_special_tokens=False)["input_ids"]


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def walk(state: ConstraintState, rng, most: int) -> list[int]:
    """A completion drawn evenly from what each rule leaves; thinking ends after six tokens, or it would last for hundreds."""
    said: list[int] = []
    while len(said) < most and (not said or said[-1] != WORDS.end):
        mask = state.mask()
        left = mask.ids if mask.allow else sorted(set(range(len(TOKENIZER))) - set(mask.ids))
        assert left, "the constraint leaves nothing to say"
        token = WORDS.think_end if state.thinking and len(said) >= 6 else left[rng.integers(len(left))]
        state.advance(token)
        said.append(token)
    return said


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 5), reasoning=st.booleans())
def test_every_constrained_completion_is_a_permutation(seed, count, reasoning):
    candidates = SIDS[:count]
    said = walk(PermutationConstraint(WORDS, candidates, reasoning).start(), np.random.default_rng(seed), 200)
    answer = READER.read(said, candidates, reasoning)
    assert answer.valid, answer.fault


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(5)), relevances=st.permutations(range(20)), reasoning=st.booleans())
def test_every_valid_completion_stays_possible(order, relevances, reasoning):
    match = "".join(f"{LETTERS[rank]} s{relevances[rank]}" for rank in range(5))
    leads = [f" s{relevances[rank]}{LETTERS[rank]}" if reasoning else "" for rank in order]
    text = (STEP_MATCH + match + THINK_END if reasoning else "") + "".join(
        lead + sid_text(CODES[rank]) for lead, rank in zip(leads, order, strict=True)
    )
    state = PermutationConstraint(WORDS, SIDS, reasoning).start()
    for token in ids_of(text + END):
        mask = state.mask()
        assert (token in mask.ids) == mask.allow
        state.advance(token)


def test_no_relevance_twice_and_no_end_while_thinking():
    state = PermutationConstraint(WORDS, SIDS, True).start()
    for token in ids_of(STEP_MATCH + " A s3 B s7 C"):
        state.advance(token)
    mask = state.mask()
    assert not mask.allow and sorted(mask.ids) == sorted([WORDS.end, *ids_of(" s3 s7")])


def test_words_that_the_tokenizer_splits_are_left_free():
    split = LayoutTokenIds(WORDS.begin, WORDS.close, WORDS.think_end, WORDS.end, [], [], [])
    state = PermutationConstraint(split, SIDS[:1], True).start()
    state.advance(WORDS.think_end)
    assert (state.mask().allow, state.mask().ids) == (False, [WORDS.end]), "anything may lead a SID, but the answer may not end"
    for token in SIDS[0]:
        state.advance(token)
    assert (state.mask().allow, state.mask().ids) == (True, [WORDS.end])


def test_constrained_closes_what_the_rule_forbids_and_nothing_else():
    thinking, answering = PermutationConstraint(WORDS, SIDS, True).start(), PermutationConstraint(WORDS, SIDS, False).start()
    logprobs = torch.randn(2, len(TOKENIZER))
    found = apply_masks(logprobs, [thinking.mask(), answering.mask()])
    assert found[0].isneginf().nonzero().flatten().tolist() == [WORDS.end]
    assert (~found[1].isneginf()).nonzero().flatten().tolist() == [WORDS.begin]
    assert torch.equal(found[0].nan_to_num(neginf=0.0), logprobs[0].index_fill(0, torch.tensor([WORDS.end]), 0.0))


def constraints(count: int) -> list[PermutationConstraint]:
    return [PermutationConstraint(WORDS, SIDS[: 2 + i % 4], False) for i in range(count)]


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_a_random_model_under_the_constraint(tmp_path, temperature):
    model = load_model(tiny_folder(tmp_path / "model"))
    engine = TransformersEngine(model, TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, batch_size=3)
    prompts = random_prompts(6, len(TOKENIZER))
    sampling = Sampling(5 * 6 + 1, temperature, samples=2, seed=4)
    free, own = engine.generate(prompts, sampling), engine.generate(prompts, sampling, constraints(6))
    assert all(
        READER.read(one.token_ids, constraint.candidates, False).valid
        for group, constraint in zip(own, constraints(6), strict=True)
        for one in group
    )
    assert not all(
        READER.read(one.token_ids, constraint.candidates, False).valid
        for group, constraint in zip(free, constraints(6), strict=True)
        for one in group
    )
    with torch.no_grad():
        ids = torch.tensor([prompts[0] + own[0][0].token_ids])
        logp = model(ids).logits[0, len(prompts[0]) - 1 : -1].log_softmax(-1).gather(1, ids[0, len(prompts[0]) :, None])[:, 0]
    torch.testing.assert_close(torch.tensor(own[0][0].logprobs), logp, atol=1e-4, rtol=1e-4, msg="log-probabilities are the model's own")

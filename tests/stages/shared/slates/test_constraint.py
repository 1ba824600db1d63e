"""Under the constraint any model, however wild, answers with a permutation; what it may choose stays its own choice."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.shared.core.errors import StageError
from stages.shared.generation.base import Sampling
from stages.shared.generation.transformers_engine import TransformersEngine, apply_masks
from stages.shared.lm.models import load_model
from stages.shared.slates.constraint import ConstraintState, PermutationConstraint
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.marks import THINK_END
from stages.shared.slates.sids import sid_text
from stages.shared.slates.slate import RELEVANCE_LEVELS, Catalog, Slate, order_of
from tests.stages.shared.slates.test_compact import layout
from tests.support.tiny_models import random_prompts, tiny_folder, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
# neighbours share prefixes of one, two and three codes
CODES = [[1, 0, 0, 0], [1, 2, 0, 0], [1, 2, 3, 0], [1, 2, 3, 4], [5, 0, 0, 0]]
CATALOG = Catalog([sid_text(codes) for codes in CODES], [""] * 5, [["Drama"]] * 5)
BINS = np.random.default_rng(0).integers(0, 10, (5, 6)).tolist()


def slate_of(count: int) -> Slate:
    return Slate(0, 0, "test", 0, [0], list(range(count)), BINS[:count], 0)


def encoded(answer: str = "letters", reasoning: bool = True) -> EncodedLayout:
    return EncodedLayout(replace(layout(answer=answer, reasoning=reasoning), catalog=CATALOG), TOKENIZER)


def no_room(answer: str, reasoning: bool, count: int) -> int:
    """Tokens of the shortest answer less one."""
    return count * (1 if answer == "letters" else 6) + reasoning


def constraint(count: int, answer: str = "letters", reasoning: bool = True, enforced: bool = True) -> PermutationConstraint:
    [one] = encoded(answer, reasoning).constraints([slate_of(count)], enforced)
    return one


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def walk(state: ConstraintState, rng, most: int) -> list[int]:
    """A completion drawn evenly from what each rule leaves."""
    said: list[int] = []
    end = state.constraint.layout.end
    while len(said) < most and (not said or said[-1] != end):
        mask = state.mask()
        left = mask.ids if mask.allow else sorted(set(range(len(TOKENIZER))) - set(mask.ids))
        assert left, "the constraint leaves nothing to say"
        token = left[rng.integers(len(left))]
        state.advance(token)
        said.append(token)
    return said


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 5), reasoning=st.booleans(), answer=st.sampled_from(["letters", "sids"]))
def test_every_constrained_completion_is_a_permutation(seed, count, reasoning, answer):
    one = constraint(count, answer, reasoning)
    said = walk(one.start(), np.random.default_rng(seed), 300)
    read = encoded(answer).reader.read(said, one.names, reasoning)
    assert read.valid, read.fault
    thought = said.index(one.layout.think_end) if reasoning else 0
    assert thought <= one.budget, "a think block ends within its budget"


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 5),
    reasoning=st.booleans(),
    answer=st.sampled_from(["letters", "sids"]),
    more=st.integers(1, 60),
)
def test_however_few_tokens_there_are_the_answer_ends_within_them(seed, count, reasoning, answer, more):
    max_tokens = no_room(answer, reasoning, count) + more
    [one] = encoded(answer, reasoning).constraints([slate_of(count)], True, max_tokens)
    said = walk(one.start(), np.random.default_rng(seed), max_tokens)
    assert encoded(answer).reader.read(said, one.names, reasoning).valid and len(said) <= max_tokens
    assert one.budget <= constraint(count, answer, reasoning).budget


@pytest.mark.parametrize("answer", ["letters", "sids"])
@pytest.mark.parametrize("reasoning", [True, False])
def test_tokens_that_cannot_hold_the_names_are_an_error(answer, reasoning):
    most = no_room(answer, reasoning, 4)
    with pytest.raises(
        StageError, match=rf"max_tokens: {most} tokens cannot hold an answer that names 4 candidates \({most + 1}\); raise it"
    ):
        encoded(answer, reasoning).constraints([slate_of(4)], True, most)
    assert encoded(answer, reasoning).constraints([slate_of(4)], False, most), "nothing is promised of free answers"


@settings(max_examples=40, deadline=None)
@given(
    relevances=st.lists(st.integers(0, RELEVANCE_LEVELS - 1), min_size=5, max_size=5),
    order=st.permutations(range(5)),
    reasoning=st.booleans(),
    answer=st.sampled_from(["letters", "sids"]),
)
def test_every_valid_completion_stays_possible(relevances, order, reasoning, answer):
    spoken, slate = encoded(answer, reasoning), slate_of(5)
    text = (spoken.layout.trace(slate, relevances) + THINK_END if reasoning else "") + spoken.layout.answer(slate, order)
    state = constraint(5, answer, reasoning).start()
    for token in ids_of(text):
        mask = state.mask()
        assert (token in mask.ids) == mask.allow
        state.advance(token)


def test_no_end_while_thinking_and_nothing_else_forbidden():
    state = constraint(3).start()
    for token in ids_of(" 2 match: A s3 B s3 A s3 whatever"):
        state.advance(token)
        assert (state.mask().allow, state.mask().ids) == (False, [state.constraint.layout.end])


def test_without_enforcement_nothing_is_forbidden():
    state = constraint(3, enforced=False).start()
    for token in ids_of(" 2 match: A s3" + THINK_END + " A A"):
        assert (state.mask().allow, state.mask().ids) == (False, [])
        state.advance(token)


def test_constrained_closes_what_the_rule_forbids_and_nothing_else():
    thinking, answering = constraint(5).start(), constraint(5, "sids", reasoning=False).start()
    logprobs = torch.randn(2, len(TOKENIZER))
    masked = apply_masks(logprobs, [thinking.mask(), answering.mask()])
    end, begin = thinking.constraint.layout.end, answering.constraint.names[0][0]
    assert masked[0].isneginf().nonzero().flatten().tolist() == [end]
    assert (~masked[1].isneginf()).nonzero().flatten().tolist() == [begin]
    assert torch.equal(masked[0].nan_to_num(neginf=0.0), logprobs[0].index_fill(0, torch.tensor([end]), 0.0))


@given(st.lists(st.integers(0, RELEVANCE_LEVELS - 1), min_size=5, max_size=5), st.sampled_from(["letters", "sids"]))
def test_a_completion_that_quotes_right_and_follows_its_relevances_is_guessed_but_for_these(relevances, answer):
    spoken, slate = encoded(answer), slate_of(5)
    rest = ids_of(spoken.layout.trace(slate, relevances) + THINK_END + spoken.layout.answer(slate, order_of(relevances)))
    state, chosen = constraint(5, answer, enforced=False).start(), 0
    while rest:
        guess = state.draft()
        assert guess == rest[: len(guess)]
        chosen += not guess
        for token in rest[: max(1, len(guess))]:
            state.advance(token)
        rest = rest[max(1, len(guess)) :]
    assert chosen == 5, "the relevances are the model's, all else is determined"


def test_a_state_and_its_copy_go_their_own_ways():
    state = constraint(3).start()
    for token in ids_of(" 2 match: A s3"):
        state.advance(token)
    twin = state.copy()
    twin.advance(state.constraint.layout.letters[1])
    twin.advance(state.constraint.layout.relevances[7])
    assert state.relevance_of == {0: 3} and twin.relevance_of == {0: 3, 1: 7}


def constraints(count: int) -> list[PermutationConstraint]:
    return [constraint(2 + i % 4, "sids", reasoning=False) for i in range(count)]


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_a_random_model_under_the_constraint(tmp_path, temperature):
    model = load_model(tiny_folder(tmp_path / "model"))
    engine = TransformersEngine(model, TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, batch_size=3)
    prompts = random_prompts(6, len(TOKENIZER))
    sampling = Sampling(5 * 6 + 1, temperature, samples=2, seed=4)
    free, held = engine.generate(prompts, sampling), engine.generate(prompts, sampling, constraints(6))
    valid = {
        name: [
            encoded().reader.read(one.token_ids, rule.names, False).valid
            for group, rule in zip(groups, constraints(6), strict=True)
            for one in group
        ]
        for name, groups in (("held", held), ("free", free))
    }
    assert all(valid["held"]) and not all(valid["free"])
    with torch.no_grad():
        ids = torch.tensor([prompts[0] + held[0][0].token_ids])
        logp = model(ids).logits[0, len(prompts[0]) - 1 : -1].log_softmax(-1).gather(1, ids[0, len(prompts[0]) :, None])[:, 0]
    torch.testing.assert_close(torch.tensor(held[0][0].logprobs), logp, atol=1e-4, rtol=1e-4, msg="log-probabilities are the model's own")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=5), st.integers(0, 10_000))
def test_items_that_share_a_sid_are_named_one_after_the_other(items, seed):
    """`tokenize.assignment: nearest` lets items share one. The answer ends, and is read as a permutation."""
    slate = replace(slate_of(5), candidates=items, bins=BINS[: len(items)])
    [one] = encoded("sids", reasoning=False).constraints([slate], True)
    said = walk(one.start(), np.random.default_rng(seed), 6 * len(items) + 1)
    assert said[-1] == one.layout.end and len(said) == 6 * len(items) + 1
    order = encoded("sids").reader.read(said, one.names, reasoning=False).order
    assert order is not None and sorted(order) == list(range(len(items)))
    assert [one.names[rank] for rank in order] == [said[6 * place : 6 * place + 6] for place in range(len(items))]
    for twins in ([rank for rank, item in enumerate(items) if item == other] for other in set(items)):
        assert [rank for rank in order if rank in twins] == twins, "in the order shown"

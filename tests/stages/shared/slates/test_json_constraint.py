"""Under the constraint any model, however wild, ends its turn with the JSON object of a permutation, whatever its tokenizer."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from stages.shared.slates.constraint import LayoutTokenIds
from stages.shared.slates.json_answers import read_json_answer
from stages.shared.slates.json_constraint import JsonConstraint
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.marks import THINK_END
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import order_of
from tests.stages.shared.slates.test_compact import CATALOG, DIGITS, SLATE
from tests.support.chat_models import chat_tokenizer

NAMED = [("letters", True), ("letters", False), ("sids", True)]
ENCODED = {
    (answer, reasoning): EncodedLayout(
        ChatLayout(CATALOG, PromptParams(layout="chat", history=3, answer=answer, reasoning=reasoning, explanation_tokens=6)),
        chat_tokenizer(),
    )
    for answer, reasoning in NAMED
}


def constraint(answer: str = "letters", reasoning: bool = True, enforced: bool = True) -> JsonConstraint:
    [one] = ENCODED[answer, reasoning].constraints([SLATE], enforced)
    return one


def ids_of(text: str) -> list[int]:
    return chat_tokenizer().encode(text, add_special_tokens=False)


@pytest.mark.parametrize(("answer", "reasoning"), NAMED)
def test_every_constrained_completion_is_a_permutation(answer, reasoning):
    encoded, one = ENCODED[answer, reasoning], constraint(answer, reasoning)
    end, size = one.layout.end, len(chat_tokenizer())
    for seed in range(4):
        rng, state, said = np.random.default_rng(seed), one.start(), []
        while not said or said[-1] != end:
            mask = state.mask()
            token = int(mask.ids[rng.integers(len(mask.ids))]) if mask.allow else int(rng.integers(size))
            if not mask.allow and token in mask.ids:
                continue
            state.advance(token)
            said.append(token)
            assert len(said) < 400
        read = encoded.reader.read(said, one.names, reasoning)
        assert read.valid, (read.fault, chat_tokenizer().decode(said))
        thought = said.index(one.layout.think_end) if reasoning else 0
        assert thought <= one.budget, "a think block ends within its budget"


@pytest.mark.parametrize(("answer", "reasoning"), NAMED)
def test_every_valid_completion_stays_possible_and_what_is_forced_is_drafted(answer, reasoning):
    encoded, one = ENCODED[answer, reasoning], constraint(answer, reasoning)
    layout = encoded.layout
    thought = f"{layout.trace(SLATE, DIGITS)}\n{THINK_END}\n\n" if reasoning else ""
    said = f'{{"explanation": "Because of ü.", "recommendations": {json.dumps([layout.names(SLATE)[r] for r in order_of(DIGITS)])}}}'
    ids = [*ids_of(thought + said), one.layout.end]
    state, drafted = one.start(), 0
    for place, token in enumerate(ids):
        mask, guess = state.mask(), state.draft()
        assert (token in mask.ids) == mask.allow, chat_tokenizer().decode(ids[: place + 1])
        assert ids[place : place + len(guess)] == guess
        drafted += bool(guess)
        state.advance(token)
    assert encoded.reader.read(ids, one.names, reasoning).order == tuple(order_of(DIGITS))
    assert drafted > len(ids_of(said)) / 3, "the object is the same but for the explanation and the order"


def test_without_enforcement_only_the_budget_of_thought_is_held():
    state = constraint(enforced=False).start()
    for token in ids_of("anything" * 20):
        assert not state.mask().allow and len(state.mask().ids) == 0
        state.advance(token)
    encoded = ENCODED["letters", True]
    options = encoded.layout.options.model_copy(update={"think_tokens": 3})
    [held] = EncodedLayout(ChatLayout(CATALOG, options), chat_tokenizer()).constraints([SLATE], enforced=False)
    state = held.start()
    for token in ids_of("one two three")[:3]:
        assert not state.mask().allow
        state.advance(token)
    assert state.mask().allow and state.mask().ids == [held.layout.think_end]
    state.advance(held.layout.think_end)
    for token in ids_of("no object at all"):
        assert not state.mask().allow and len(state.mask().ids) == 0
        state.advance(token)


def test_a_constraint_travels_without_its_grammar():
    """As vLLM has it: a mapping of plain values, and the tables once."""
    one = constraint()
    values = asdict(one)
    assert values["grammar"] is one.grammar
    assert JsonConstraint(**{**values, "layout": LayoutTokenIds(**values["layout"])}) == one
    twin = one.start()
    twin.advance(ids_of("a")[0])
    assert one.start().thought == 0 and twin.copy().thought == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"explanation": "e", "recommendations": ["B", "A"]}', ""),
        ('\n\n{"recommendations": [ "B","A " ],\n "explanation": "\\"e\\""}\n', ""),
        ('{"explanation": "e", "recommendations": ["B", "B"]}', "duplicate"),
        ('{"explanation": "e", "recommendations": ["B"]}', "missing"),
        ('{"explanation": "e", "recommendations": []}', "missing"),
        ('{"explanation": "e", "recommendations": ["B", "C"]}', "outside"),
        ('{"explanation": "e", "recommendations": ["B", 1]}', "malformed"),
        ('{"explanation": "e", "recommendations": "BA"}', "malformed"),
        ('{"explanation": "e"}', "malformed"),
        ('{"explanation": 1, "recommendations": ["B", "A"]}', "malformed"),
        ('Sure: {"explanation": "e", "recommendations": ["B", "A"]}', "malformed"),
        ('{"explanation": "e", "recommendations": ["B", "A"]} I hope', "malformed"),
        ('{"explanation": "a "quoted" word", "recommendations": ["B", "A"]}', "malformed"),
        ('["B", "A"]', "malformed"),
        ("[" * 100_000, "malformed"),
        ("", "malformed"),
    ],
    ids=lambda value: value[:40],
)
def test_an_answer_is_read_by_kind_of_fault(text, fault):
    read = read_json_answer(text, ["A", "B"])
    assert read.fault == fault and read.order == (None if fault else (1, 0))


def test_a_completion_without_an_end_or_a_closed_thought():
    encoded, one = ENCODED["letters", True], constraint()
    said = ids_of('thought</think>\n\n{"explanation": "e", "recommendations": ["C", "B", "A"]}')
    assert encoded.reader.read(said, one.names).fault == "unfinished"
    assert encoded.reader.read([*said, one.layout.end], one.names).order == (2, 1, 0)
    assert encoded.reader.read([*said[1:], one.layout.end], one.names).order == (2, 1, 0)
    assert encoded.reader.read([*ids_of("thought"), one.layout.end], one.names).fault == "malformed"


def test_items_that_share_a_name_are_named_one_after_the_other():
    said = '{"explanation": "x", "recommendations": ["a", "b", "a"]}'
    assert read_json_answer(said, ["a", "a", "b"]).order == (0, 2, 1)
    assert read_json_answer(said, ["a", "b", "c"]).fault == "duplicate"

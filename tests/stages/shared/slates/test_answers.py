from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.shared.slates.answers import Answer
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.marks import END, LETTERS, THINK_END
from stages.shared.slates.sids import SID_BEGIN, SID_END, sid_text
from stages.shared.slates.slate import Slate
from tests.stages.shared.slates.test_compact import LAYOUT, SLATE, layout
from tests.support.tiny_models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
LETTERED, SPELT = EncodedLayout(LAYOUT, TOKENIZER), EncodedLayout(layout(answer="sids"), TOKENIZER)
BY_FORM = {"letters": LETTERED, "sids": SPELT}
NAMES = {"letters": LETTERS[:3], "sids": [layout().catalog.sids[item] for item in SLATE.candidates]}
OTHER = {"letters": LETTERS[3], "sids": sid_text([7, 7, 7, 7])}
THOUGHT = f" 2 match:{LETTERS[0]} s3{THINK_END}"

form = pytest.mark.parametrize("form", ["letters", "sids"])


def read(form: str, text: str, reasoning: bool = True, slate: Slate = SLATE) -> Answer:
    encoded = BY_FORM[form]
    [names] = encoded.names([slate])
    return encoded.reader.read(TOKENIZER.encode(text, add_special_tokens=False), names, reasoning)


@form
@given(order=st.permutations(range(3)))
def test_every_permutation_is_read_back(form, order):
    answer = read(form, THOUGHT + BY_FORM[form].layout.answer(SLATE, order))
    assert answer.order == tuple(order) and answer.valid and answer.fault == ""
    assert read(form, BY_FORM[form].layout.answer(SLATE, order), reasoning=False) == answer


@form
def test_what_follows_the_end_is_not_read(form):
    assert read(form, THOUGHT + "".join(NAMES[form]) + END + OTHER[form] + THINK_END).order == (0, 1, 2)


@form
@pytest.mark.parametrize(
    "text,fault",
    [
        ("{thought}{all}", "unfinished"),
        ("", "unfinished"),
        ("{all}{end}", "malformed"),  # the thought never ended
        ("{thought}I like {all}{end}", "malformed"),
        ("{thought} s3{all}{end}", "malformed"),
        ("{thought}{all} thanks{end}", "malformed"),
        ("{thought}{first}{second}{other}{end}", "outside"),
        ("{thought}{all}{second}{end}", "duplicate"),
        ("{thought}{first}{first}{first}{end}", "duplicate"),
        ("{thought}{first}{second}{end}", "missing"),
        ("{thought}{end}", "missing"),
    ],
)
def test_faults(form, text, fault):
    first, second, _ = NAMES[form]
    answer = read(form, text.format(thought=THOUGHT, all="".join(NAMES[form]), first=first, second=second, other=OTHER[form], end=END))
    assert (answer.order, answer.fault, answer.valid) == (None, fault, False)


def test_half_a_sid_and_an_empty_one():
    whole = "".join(NAMES["sids"])
    assert read("sids", THOUGHT + whole[: -len(SID_END)] + END).fault == "malformed"
    assert read("sids", THOUGHT + NAMES["sids"][0] + SID_BEGIN + SID_END + END).fault == "outside"


def test_the_other_form_is_no_answer():
    assert read("letters", THOUGHT + "".join(NAMES["sids"]) + END).fault == "outside"
    assert read("sids", THOUGHT + "".join(NAMES["letters"]) + END).fault == "outside"


@form
@given(ids=st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=60), reasoning=st.booleans())
def test_no_token_ids_break_the_reader(form, ids, reasoning):
    encoded = BY_FORM[form]
    [names] = encoded.names([SLATE])
    answer = encoded.reader.read(ids, names, reasoning)
    assert (answer.order is None) == (answer.fault != "")


def test_an_item_whose_sid_another_one_has_too_counts_once():
    twins = replace(SLATE, candidates=[SLATE.candidates[0], SLATE.candidates[1], SLATE.candidates[0]])
    one, two, _ = NAMES["sids"]
    assert read("sids", THOUGHT + one + two + one + END, slate=twins).order == (0, 1, 2)
    assert read("sids", THOUGHT + two + one + one + END, slate=twins).order == (1, 0, 2)
    assert read("sids", THOUGHT + one + one + one + END, slate=twins).fault == "duplicate"
    assert read("sids", THOUGHT + one + two + two + END, slate=twins).fault == "duplicate"
    assert read("sids", THOUGHT + one + two + END, slate=twins).fault == "missing"

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.shared.slates.answers import AnswerReader
from stages.shared.slates.prompts import END, LETTERS, RELEVANCE_LEVELS, THINK_END, break_ties, order_of
from stages.shared.slates.sids import SID_BEGIN, SID_END, sid_text
from tests.support.tiny_models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
READER = AnswerReader(TOKENIZER)
SIDS = [sid_text([rank, rank + 1, 7 - rank, 0]) for rank in range(4)]
OTHER = sid_text([7, 7, 7, 7])
THOUGHT = f" 3 match:{LETTERS[0]} s3 best{SIDS[2]}{THINK_END}"


def encode(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


CANDIDATES = [encode(sid) for sid in SIDS]


def read(text: str, reasoning: bool = True):
    return READER.read(encode(text), CANDIDATES, reasoning)


@given(st.permutations(range(4)), st.booleans(), st.lists(st.integers(0, RELEVANCE_LEVELS - 1), min_size=4, max_size=4))
def test_every_permutation_is_read_back(order, led, relevances):
    leads = [f" s{relevances[rank]}{LETTERS[rank]}" if led else "" for rank in range(4)]
    answer = read(THOUGHT + "".join(leads[rank] + SIDS[rank] for rank in order) + END)
    assert answer.order == tuple(order) and answer.valid and answer.fault == ""


def test_an_answer_at_once():
    assert read("".join(SIDS) + END, reasoning=False).order == (0, 1, 2, 3)


def test_what_follows_the_end_is_not_read():
    assert read(THOUGHT + "".join(SIDS) + END + OTHER + THINK_END).order == (0, 1, 2, 3)


@pytest.mark.parametrize(
    "text,fault",
    [
        (THOUGHT + "".join(SIDS), "unfinished"),
        ("", "unfinished"),
        ("".join(SIDS) + END, "malformed"),  # the thought never ended
        (THOUGHT + "I like " + "".join(SIDS) + END, "malformed"),
        (THOUGHT + " s3".join(SIDS) + END, "malformed"),  # a relevance without its letter
        (THOUGHT + "".join(SIDS)[: -len(SID_END)] + END, "malformed"),
        (THOUGHT + "".join(SIDS) + " thanks" + END, "malformed"),
        (THOUGHT + "".join(SIDS[:3]) + OTHER + END, "outside"),
        (THOUGHT + SIDS[0] + SID_BEGIN + SID_END + END, "outside"),
        (THOUGHT + "".join(SIDS) + SIDS[1] + END, "duplicate"),
        (THOUGHT + SIDS[0] * 4 + END, "duplicate"),
        (THOUGHT + "".join(SIDS[1:]) + END, "missing"),
        (THOUGHT + END, "missing"),
    ],
)
def test_faults(text, fault):
    answer = read(text)
    assert (answer.order, answer.fault, answer.valid) == (None, fault, False)


def test_leads_are_no_part_of_an_answer_at_once():
    assert read(f" s3{LETTERS[0]}".join(["", *SIDS]) + END, reasoning=False).fault == "malformed"


def test_a_slate_of_one_candidate():
    assert READER.read(encode(THOUGHT + SIDS[2] + END), CANDIDATES[2:3]).order == (0,)
    assert READER.read(encode(THOUGHT + END), CANDIDATES[2:3]).fault == "missing"


@given(st.lists(st.integers(0, RELEVANCE_LEVELS - 1), min_size=1, max_size=10))
def test_order_of_relevances(relevances):
    order = order_of(relevances)
    assert sorted(order) == list(range(len(relevances)))
    assert all((-relevances[a], a) < (-relevances[b], b) for a, b in pairwise(order))


@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=60), st.booleans())
def test_no_token_ids_break_the_reader(ids, reasoning):
    answer = READER.read(ids, CANDIDATES, reasoning)
    assert (answer.order is None) == (answer.fault != "")


@given(st.lists(st.tuples(st.floats(-3, 3), st.integers(0, RELEVANCE_LEVELS - 1)), min_size=1, max_size=len(LETTERS)))
def test_distinct_relevances_keep_the_order_and_move_little(pairs):
    utilities = [utility for utility, _ in pairs]
    levels = sorted(level for _, level in pairs)
    ranks = sorted(range(len(pairs)), key=lambda rank: (utilities[rank], -rank))
    wanted = [levels[ranks.index(rank)] for rank in range(len(pairs))]
    relevances = break_ties(wanted, utilities)
    assert len(set(relevances)) == len(relevances) and all(0 <= relevance < RELEVANCE_LEVELS for relevance in relevances)
    assert order_of(relevances) == ranks[::-1]
    if len(set(wanted)) == len(wanted):
        assert relevances == wanted

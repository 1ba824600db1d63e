"""Planted contradictions, in the layout of the golden files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.report.diagnostics.audit import red_flags
from stages.report.diagnostics.faithfulness import KINDS, check_answer, contradictions, read_claims, summary
from stages.shared.core.errors import StageError
from stages.shared.slates.prompts import END, THINK_END, Catalog, PromptParams, answer_text, break_ties, order_of, trace_text
from stages.shared.slates.sids import SID_BEGIN, SID_END
from tests.stages.shared.slates.test_prompts import CATALOG, SLATE

GOLDEN = Path("tests/stages/shared/slates/golden")
TRACE = (GOLDEN / "trace.txt").read_text(encoding="utf-8")  # A s4, B s15, C s0, best B, link A
LED = (GOLDEN / "answer_led.txt").read_text(encoding="utf-8")  # B A C
A, B, C = (CATALOG.sids[item] for item in SLATE.candidates)
TOLD = [CATALOG.sids[item] for item in SLATE.history[-3:]]
UNTOLD, STRANGER = CATALOG.sids[SLATE.history[0]], CATALOG.sids[7]
ORDER = (1, 0, 2)


def check(text, order=ORDER):
    return check_answer(read_claims(text), order, [A, B, C], TOLD)


def shown(text, order=ORDER):
    return {kind for kind, value in check(text, order).shown.items() if value}


def test_the_golden_trace_and_its_answer_agree():
    found = check(TRACE + THINK_END + LED)
    assert set(found.shown) == set(KINDS) and not any(found.shown.values())
    assert (found.first_cited, found.discordant) == (True, 0.0)


def test_what_the_golden_trace_claims():
    claims = read_claims(TRACE + THINK_END + LED)
    assert (claims.sids, claims.best_letter, claims.best_sid) == ([A, B], "B", B)
    assert claims.relevances == claims.leads == {"A": 4, "B": 15, "C": 0}
    assert set(claims.letters) == {"A", "B", "C"}
    assert claims.labels[0] == ("A", A) and set(claims.labels) == {("A", A), ("B", B), ("C", C)}


@pytest.mark.parametrize(
    ("sid", "outside"),
    [(STRANGER, True), (UNTOLD, True), (TOLD[0], False), (SID_BEGIN + SID_END, True), (A.removesuffix(SID_END), True), (B, False)],
)
def test_an_item_outside_the_slate_is_caught_in_the_reasoning(sid, outside):
    reasoning = TRACE.replace(" 3 match:", f"{sid} 3 match:")
    assert shown(reasoning + THINK_END + LED) == ({"cites_outside"} if outside else set())
    assert check(reasoning + THINK_END, None).shown["cites_outside"] == outside  # an invalid answer is no excuse


def test_a_letter_no_candidate_has_is_outside_too():
    assert shown(TRACE.replace("C s0", "C s0 D s3") + THINK_END + LED) == {"cites_outside"}


def test_letters_and_sids_in_the_answer_are_not_the_reasonings():
    assert shown(TRACE + THINK_END + LED.replace(C, STRANGER)) == {"mislabelled"}


def test_a_chosen_item_that_the_reasoning_never_mentions():
    silent = TRACE.replace(" B s15", "").replace(f" best B ca8 sc8{B}", "")
    answer = answer_text(ORDER, SLATE, CATALOG)
    found = check(silent + THINK_END + answer)
    assert {kind for kind, value in found.shown.items() if value} == {"first_unmentioned"}
    assert found.first_cited is False and "best_not_first" not in found.shown
    by_letter = check(TRACE.replace(f" best B ca8 sc8{B}", "") + THINK_END + answer)
    assert by_letter.shown["first_unmentioned"] is False and by_letter.first_cited is False


def test_a_stated_best_that_is_not_the_first():
    other = TRACE.replace(f" best B ca8 sc8{B}", f" best C po9{C}")
    assert shown(other + THINK_END + LED) == {"best_not_first"}
    assert shown(TRACE.replace(f" best B ca8 sc8{B}", " best C po9") + THINK_END + LED) == {"best_not_first"}
    assert shown(TRACE.replace(f" best B ca8 sc8{B}", f" best{C}") + THINK_END + LED) == {"best_not_first"}
    assert check(TRACE.replace(f" best B ca8 sc8{B}", f" best{B}") + THINK_END + LED).shown["best_not_first"] is False
    torn = TRACE.replace(f" best B ca8 sc8{B}", f" best B ca8 sc8{A}")
    assert shown(torn + THINK_END + LED) == {"best_not_first", "mislabelled"}


def test_relevances_that_disagree_with_the_order():
    answer = answer_text((1, 2, 0), SLATE, CATALOG)
    found = check(TRACE + THINK_END + answer, (1, 2, 0))
    assert found.shown["strengths_disagree"] and found.discordant == pytest.approx(1 / 3)
    assert check(TRACE + THINK_END + LED, (2, 0, 1)).discordant == 1.0
    level = TRACE.replace("C s0", "C s4")  # equals may stand either way
    assert check(level + THINK_END + answer, (1, 2, 0)).shown["strengths_disagree"] is False


def test_relevances_restated_otherwise_in_the_answer():
    assert shown(TRACE + THINK_END + LED.replace(" s4 A", " s5 A")) == {"strengths_changed"}


def test_of_reasoning_that_says_nothing_only_silence_is_told():
    found = check(THINK_END + answer_text(ORDER, SLATE, CATALOG))
    assert found.shown == {"cites_outside": False, "mislabelled": False, "first_unmentioned": True}
    assert found.discordant is None
    assert check(TRACE, None).shown == {"cites_outside": False, "mislabelled": False}  # never closed


def test_categories_from_outside_are_no_claims():
    """A category may spell a step of the layout."""
    nasty = TRACE.replace("Action Comedy", "Vitamin A 3 best Z of 2 match: Hepatitis B")
    assert shown(nasty + THINK_END + LED) == set()


@given(st.permutations(range(6)), st.data())
def test_the_layout_of_prompts_never_contradicts_itself(order, data):
    """Whatever honest trace is written, by prompts.trace_text itself, nothing is found in it."""
    catalog = Catalog(
        [sid.replace("<s_d_0>", f"<s_d_{at % 2}>") for at, sid in enumerate(CATALOG.sids)], CATALOG.titles, CATALOG.categories
    )
    slate = replace(SLATE, history=[6, 7], candidates=list(range(6)), bins=[[level] * 6 for level in range(6)])
    relevances = break_ties(data.draw(st.lists(st.integers(0, 31), min_size=6, max_size=6)), [-order.index(rank) for rank in range(6)])
    trace = trace_text(
        slate, catalog, PromptParams(), relevances, data.draw(st.integers(0, 5)), data.draw(st.sampled_from([[], ["co3", "tr0"]]))
    )
    text = trace + THINK_END + answer_text(order_of(relevances), slate, catalog, relevances)
    [found] = contradictions([text], np.array([order]), np.array([True]), [slate], catalog, PromptParams())
    assert not any(found.shown.values()) and set(found.shown) == set(KINDS) and found.discordant == 0


def test_a_planted_cheat_shows_in_the_summary_and_among_the_suspicions():
    honest, cheat = TRACE + THINK_END + LED, TRACE.replace(f"{A} 3 match", f"{STRANGER} 3 match") + THINK_END + LED
    texts = [honest] * 6 + [cheat] * 3 + [cheat.replace(END, "")]
    orders, valid = np.array([ORDER] * 9 + [(0, 1, 2)]), np.array([True] * 9 + [False])
    found = summary(contradictions(texts, orders, valid, [SLATE] * 10, CATALOG, PromptParams(history=3)))
    assert found["n"] == 10 and found["any_share"] == 0.4
    assert found["kinds"]["cites_outside"] == {"n": 10, "share": 0.4}
    assert found["kinds"]["best_not_first"] == {"n": 9, "share": 0.0}
    assert (found["first_cited_share"], found["discordant_pairs"]) == (1.0, 0.0)
    audit = {"identity_share": 0.0, "adjacent_swap_share": 0.0, "reversed_share": 0.0, "commonest_order_share": 0.0}
    assert red_flags(audit | {"contradictions": found}) == [
        f"contradicts itself in 40.0% of 10 answers: {KINDS['cites_outside']}",
        f"contradicts itself in 40.0% of 10 answers: {KINDS['mislabelled']}",
    ]


def test_answers_of_other_slates_are_refused():
    with pytest.raises(StageError, match="1 texts, 1 orders and 1 marks for 2 slates"):
        contradictions([""], np.array([ORDER]), np.array([True]), [SLATE] * 2, CATALOG, PromptParams())

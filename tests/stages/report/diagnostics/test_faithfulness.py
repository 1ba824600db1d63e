"""Planted contradictions, in the layout of the golden files."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.report.diagnostics.audit import red_flags
from stages.report.diagnostics.faithfulness import KINDS, Checked, check_answer, contradictions, summary
from stages.shared.core.errors import StageError
from stages.shared.slates.layouts.marks import END, THINK_END
from stages.shared.slates.sids import SID_BEGIN, SID_END
from stages.shared.slates.slate import RELEVANCE_LEVELS, order_of
from tests.stages.shared.slates.test_compact import CATALOG, GOLDEN, LAYOUT, SLATE

TRACE = (GOLDEN / "trace.txt").read_text(encoding="utf-8")  # A s4, B s15, C s4
ANSWER = (GOLDEN / "answer.txt").read_text(encoding="utf-8")  # B A C
A, B, _ = (CATALOG.sids[item] for item in SLATE.candidates)
TOLD = CATALOG.sids[SLATE.history[-1]]
UNTOLD, STRANGER = CATALOG.sids[SLATE.history[0]], CATALOG.sids[7]
ORDER = (1, 0, 2)


def check(text: str, order: tuple[int, ...] | None = ORDER) -> Checked:
    return check_answer(LAYOUT.claims(text), order, SLATE, LAYOUT.shown_sids(SLATE))


def shown(text: str, order: tuple[int, ...] | None = ORDER) -> set[str]:
    return {kind for kind, value in check(text, order).shown.items() if value}


def test_the_golden_trace_and_its_answer_agree():
    checked = check(TRACE + THINK_END + ANSWER)
    assert set(checked.shown) == set(KINDS) and not any(checked.shown.values()) and checked.discordant == 0.0


@pytest.mark.parametrize(
    ("sid", "outside"),
    [(STRANGER, True), (UNTOLD, True), (TOLD, False), (SID_BEGIN + SID_END, True), (A.removesuffix(SID_END), True), (B, False)],
)
def test_an_item_outside_the_slate_is_caught_in_the_reasoning(sid, outside):
    reasoning = TRACE.replace(" 2 match:", f"{sid} 2 match:")
    assert shown(reasoning + THINK_END + ANSWER) == ({"cites_outside"} if outside else set())
    assert check(reasoning + THINK_END, None).shown["cites_outside"] == outside  # an invalid answer is no excuse


def test_a_letter_no_candidate_has_is_outside_too():
    assert shown(TRACE + " D s3" + THINK_END + ANSWER) == {"cites_outside"}


@pytest.mark.parametrize("wrong", [" A co6 tr3 ca5 po6 re2 sc9", " A tr3 co7 ca5 po6 re2 sc9", " A co7 tr3 ca5 po6 re2"])
def test_a_feature_restated_otherwise_is_a_misquote(wrong):
    assert shown(TRACE.replace(" A co7 tr3 ca5 po6 re2 sc9", wrong) + THINK_END + ANSWER) == {"misquotes"}


def test_a_first_candidate_without_a_word_of_reasoning():
    silent = TRACE.replace(" B co1 tr0 ca8 po4 re4 sc8 B s15", "")
    assert shown(silent + THINK_END + ANSWER) == {"first_unmentioned"}


def test_an_answer_against_its_own_relevances():
    checked = check(TRACE + THINK_END + " A B C" + END, (0, 1, 2))
    assert checked.shown["relevances_disagree"] and checked.discordant == pytest.approx(1 / 2), "A before B; A and C are a tie"
    assert not check(TRACE + THINK_END + " B C A" + END, (1, 2, 0)).shown["relevances_disagree"], "a tie goes either way"


def test_of_reasoning_that_says_nothing_only_silence_is_told():
    checked = check(THINK_END + ANSWER)
    assert checked.shown == {"cites_outside": False, "misquotes": False, "first_unmentioned": True} and checked.discordant is None
    assert check(TRACE, None).shown == {"cites_outside": False, "misquotes": False}  # never closed


def test_categories_from_outside_are_no_claims():
    """A category may spell a step of the layout."""
    nasty = TRACE.replace("Action Comedy", "Vitamin A 1 pattern: Z of Hepatitis B co9 sc0")
    assert shown(nasty + THINK_END + ANSWER) == set()


@given(st.permutations(range(3)), st.lists(st.integers(0, RELEVANCE_LEVELS - 1), min_size=3, max_size=3))
def test_the_layout_never_contradicts_itself(bins_of, relevances):
    """Whatever honest trace the layout writes, nothing is found in it."""
    slate = replace(SLATE, bins=[SLATE.bins[place] for place in bins_of])
    order = order_of(relevances)
    text = LAYOUT.trace(slate, relevances) + THINK_END + LAYOUT.answer(slate, order)
    [checked] = contradictions([text], np.array([order]), np.array([True]), [slate], LAYOUT)
    assert not any(checked.shown.values()) and checked.discordant in (0, None)


def test_a_planted_cheat_shows_in_the_summary_and_among_the_suspicions():
    honest, cheat = TRACE + THINK_END + ANSWER, TRACE.replace(" 2 match", f"{STRANGER} 2 match") + THINK_END + ANSWER
    texts = [honest] * 6 + [cheat] * 3 + [cheat.replace(END, "")]
    orders, valid = np.array([ORDER] * 9 + [(0, 1, 2)]), np.array([True] * 9 + [False])
    figures = summary(contradictions(texts, orders, valid, [SLATE] * 10, LAYOUT))
    assert figures["n"] == 10 and figures["any_share"] == 0.4 and figures["discordant_pairs"] == 0.0
    assert figures["kinds"]["cites_outside"] == {"n": 10, "share": 0.4}
    assert figures["kinds"]["relevances_disagree"] == {"n": 9, "share": 0.0}
    audit = {"identity_share": 0.0, "adjacent_swap_share": 0.0, "reversed_share": 0.0, "commonest_order_share": 0.0}
    assert red_flags(audit | {"contradictions": figures}) == [
        f"contradicts itself in 40.0% of 10 answers: {KINDS['cites_outside']}",
    ]


def test_answers_of_other_slates_are_refused():
    with pytest.raises(StageError, match="1 texts, 1 orders and 1 marks for 2 slates"):
        contradictions([""], np.array([ORDER]), np.array([True]), [SLATE] * 2, LAYOUT)

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from stages.shared.slates.prompts import RELEVANCE_LEVELS, order_of, slate_prompt
from stages.traces.citations import cited, uncited
from stages.traces.teacher import StatisticalTeacher, best_words, levels_of, linked, relevances_of, sample_utilities
from tests.support.traces_data import CATALOG, OPTIONS, scored_slates

SCORED = scored_slates()


def plackett_luce(order: tuple[int, ...], scores: np.ndarray, scale: float) -> float:
    """Closed form: draw without replacement with weights exp(score / scale)."""
    weights, left, probability = np.exp(scores / scale), list(range(len(scores))), 1.0
    for chosen in order:
        probability *= weights[chosen] / weights[left].sum()
        left.remove(chosen)
    return probability


def test_sampled_orders_follow_plackett_luce():
    scores, scale, draws = np.array([0.9, 0.1, 0.4]), 0.5, 20_000
    utilities = sample_utilities(np.tile(scores, (draws, 1)), scale, np.random.default_rng(3))
    seen = Counter(map(tuple, np.argsort(-utilities, axis=1).tolist()))
    orders = list(permutations(range(3)))
    expected = [draws * plackett_luce(order, scores, scale) for order in orders]
    assert chisquare([seen[order] for order in orders], expected).pvalue > 0.01


def test_noise_is_centred_and_vanishes_at_temperature_zero():
    scores = np.zeros((20_000, 2))
    assert abs(sample_utilities(scores, 1.0, np.random.default_rng(0)).mean()) < 0.03
    assert np.array_equal(sample_utilities(scores, 0.0, np.random.default_rng(0)), scores)
    teacher = StatisticalTeacher(CATALOG, OPTIONS, 0.0, 7, targeted=False)
    assert teacher.attempts == 1
    for one, proposal in zip(SCORED, teacher.propose(SCORED, 0), strict=True):
        assert list(proposal.relevances) == relevances_of(one.scores, one.edges)


def test_levels_are_about_equal_shares_of_what_was_fitted_on():
    edges = np.quantile(np.arange(1600.0), np.arange(1, RELEVANCE_LEVELS) / RELEVANCE_LEVELS)
    assert np.bincount(levels_of(np.arange(1600.0), edges)).tolist() == [1600 // RELEVANCE_LEVELS] * RELEVANCE_LEVELS
    assert all(one.edges.shape == (RELEVANCE_LEVELS - 1,) and (np.diff(one.edges) >= 0).all() for one in SCORED)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, len(SCORED) - 1), attempt=st.integers(0, 9), temperature=st.floats(0.0, 2.0), targeted=st.booleans())
def test_a_trace_agrees_with_its_order_and_cites_only_its_prompt(place, attempt, temperature, targeted):
    one = SCORED[place]
    proposal = StatisticalTeacher(CATALOG, OPTIONS, temperature, 7, targeted).propose([one], attempt)[0]
    prompt = slate_prompt(one.slate, CATALOG, OPTIONS)
    assert proposal.order == tuple(order_of(proposal.relevances))
    assert uncited(proposal.trace, prompt) == [] and len(cited(proposal.trace)) >= 2 + 2 + len(one.scores)
    said = proposal.trace.split(" 2 link:")[0].removeprefix(" 1 pattern:").split()
    assert said and set(said) <= set(prompt.split("taste:")[1].split("candidates:")[0].split())
    match = proposal.trace.split(" 3 match:")[1].split(" best")[0]
    assert match == "".join(f" {letter} s{relevance}" for letter, relevance in zip("ABCDE", proposal.relevances, strict=True))
    if targeted:
        assert proposal.order[0] == one.slate.target_rank and proposal.relevances.count(RELEVANCE_LEVELS - 1) == 1


def test_targeted_leaves_the_order_of_the_others_as_the_scorer_has_it():
    teacher = StatisticalTeacher(CATALOG, OPTIONS, 0.3, 7, targeted=True)
    for one, proposal in zip(SCORED, teacher.propose(SCORED, 0), strict=True):
        free = relevances_of(one.scores, one.edges)
        assert [r for r in proposal.order if r != one.slate.target_rank] == [r for r in order_of(free) if r != one.slate.target_rank]


def test_link_and_best_features_are_those_of_the_slate():
    for one in SCORED[:20]:
        co = [bins[0] for bins in one.slate.bins]
        assert linked(one) == co.index(max(co))
        for rank in range(len(co)):
            words, reasons = best_words(one, rank), one.contributions[rank]
            assert len(words) == min(2, int((reasons > 0).sum()))
            if words and reasons.argmax() == 0:
                assert words[0] == f"co{co[rank]}"


def test_a_slates_draws_do_not_depend_on_its_neighbours():
    teacher = StatisticalTeacher(CATALOG, OPTIONS, 0.5, 7, targeted=False)
    together = teacher.propose(SCORED[:6], 2)
    assert [teacher.propose([one], 2)[0] for one in SCORED[:6]] == together
    assert teacher.propose(SCORED[:6], 3) != together
    assert StatisticalTeacher(CATALOG, OPTIONS, 0.5, 8, targeted=False).propose(SCORED[:6], 2) != together


@pytest.mark.parametrize(
    ("trace", "found"),
    [
        (f" 2 link: co4{CATALOG.sids[1]}", []),
        (f" 2 link: co5{CATALOG.sids[1]}", ["co5"]),
        (f" 3 match: s3{CATALOG.sids[2]}", [CATALOG.sids[2]]),
        (" best<|end|> co4", ["<|end|>"]),
        (" half <|sid_begin|><s_a_0>", ["<|sid_begin|>"]),
        (" decoy4 scope co", []),
        (" 3 match: A s1 B s2", ["B"]),
        (f" best B co4{CATALOG.sids[1]}", ["B"]),
        (f" 2 link: co4 B{CATALOG.sids[1]}", ["B"]),
        (" a B movie", []),
    ],
)
def test_uncited_names_what_was_invented(trace, found):
    assert uncited(trace, f"candidates: A co4 tr3{CATALOG.sids[1]}") == found

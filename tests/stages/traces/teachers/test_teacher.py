import math
from collections import Counter
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from stages.shared.slates.slate import RELEVANCE_LEVELS, order_of
from stages.traces.out_of_time import TOP_FINENESS, level_edges
from stages.traces.teachers.teacher import StatisticalTeacher, levels_of, sample_utilities
from tests.support.raw_tables import FEW
from tests.support.traces_data import LAYOUT, many_slates, scored_slates

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
    teacher = StatisticalTeacher(LAYOUT, 0.0, 7, targeted=False)
    assert teacher.attempts == 1
    for one, proposal in zip(SCORED, teacher.propose(SCORED, 0), strict=True):
        assert list(proposal.relevances) == levels_of(one.scores, one.edges)


def test_levels_hold_evenly_fewer_scores_from_the_bottom_to_the_top():
    scores = np.arange(30_000.0)
    sizes = np.bincount(levels_of(scores, level_edges(scores, RELEVANCE_LEVELS)), minlength=RELEVANCE_LEVELS)
    assert sizes[0] / sizes[-1] == pytest.approx(TOP_FINENESS, rel=0.02) and (np.diff(sizes, 2) <= 2).all() and (np.diff(sizes) < 0).all()
    assert all(one.edges.shape == (RELEVANCE_LEVELS - 1,) and (np.diff(one.edges) >= 0).all() for one in SCORED)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, len(SCORED) - 1), attempt=st.integers(0, 9), temperature=st.floats(0.0, 2.0), targeted=st.booleans())
def test_a_trace_agrees_with_its_order_and_cites_only_its_prompt(place, attempt, temperature, targeted):
    one = SCORED[place]
    proposal = StatisticalTeacher(LAYOUT, temperature, 7, targeted).propose([one], attempt)[0]
    assert proposal.order == tuple(order_of(proposal.relevances)) and proposal.trace == LAYOUT.trace(one.slate, proposal.relevances)
    assert LAYOUT.unfounded(proposal.trace, one.slate) == []
    if targeted:
        assert proposal.order[0] == one.slate.target_rank and proposal.relevances.count(RELEVANCE_LEVELS - 1) == 1


def test_targeted_leaves_the_order_of_the_others_as_the_scorer_has_it():
    teacher = StatisticalTeacher(LAYOUT, 0.3, 7, targeted=True)
    for one, proposal in zip(SCORED, teacher.propose(SCORED, 0), strict=True):
        free = levels_of(one.scores, one.edges)
        others = [rank for rank in order_of(free) if rank != one.slate.target_rank]
        top_two = [
            rank for rank in others if free[rank] == RELEVANCE_LEVELS - 1
        ]  # they give way to the target, and may meet the next level
        assert [r for r in proposal.order if r != one.slate.target_rank][len(top_two) :] == others[len(top_two) :] or top_two


def test_a_slates_draws_do_not_depend_on_its_neighbours():
    teacher = StatisticalTeacher(LAYOUT, 0.5, 7, targeted=False)
    together = teacher.propose(SCORED[:6], 2)
    assert [teacher.propose([one], 2)[0] for one in SCORED[:6]] == together
    assert teacher.propose(SCORED[:6], 3) != together
    assert StatisticalTeacher(LAYOUT, 0.5, 8, targeted=False).propose(SCORED[:6], 2) != together


@pytest.mark.parametrize("targeted", [False, True])
def test_equal_scores_teach_no_order(targeted):
    """Shown as the retriever had them (traces.shuffle: false), all equal candidates take every order as often."""
    tied = [replace(one, scores=np.zeros(4), unseen_scores=np.zeros(4)) for one in many_slates(1200, k=4)]
    proposals = StatisticalTeacher(LAYOUT, 0.0, 7, targeted, random_ties=True).propose(tied, 0)
    rest = [
        tuple(rank for rank in p.order if not targeted or rank != one.slate.target_rank) for one, p in zip(tied, proposals, strict=True)
    ]
    seen = Counter(tuple(sorted(range(len(order)), key=order.__getitem__)) for order in rest)
    assert len(seen) == (6 if targeted else 24) and chisquare(list(seen.values())).pvalue > 0.01
    assert {one.support for one in tied} == {1.5}, "whether the features support a target does not go by its place among equals"


@FEW
@given(scores=st.lists(st.integers(0, 2), min_size=4, max_size=4))
def test_equals_take_every_order_and_others_their_own(scores):
    """Whichever of the candidates are equal: none of their orders is preferred, and a better one stands before them."""
    slates = [
        replace(one, scores=np.array(scores, dtype=float), unseen_scores=np.array(scores, dtype=float)) for one in many_slates(480, k=4)
    ]
    orders = [proposal.order for proposal in StatisticalTeacher(LAYOUT, 0.0, 7, False, random_ties=True).propose(slates, 0)]
    assert all(np.diff([scores[rank] for rank in order]).max() <= 0 for order in orders)
    seen = Counter(orders)
    possible = math.prod(math.factorial(count) for count in Counter(scores).values())
    assert len(seen) == possible and (possible == 1 or chisquare(list(seen.values())).pvalue > 1e-4)

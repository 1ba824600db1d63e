import json
import re

import numpy as np
import pytest

from stages.shared.recsys import lambdamart
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.chat_trace import STEP_ORDER, WORDS, weighing
from stages.shared.slates.layouts.marks import END
from stages.shared.slates.prompt_params import PromptParams
from stages.traces.acceptance.checks import TraceChecks
from stages.traces.acceptance.rejection import sample
from stages.traces.out_of_time import feature_array, label_by_latest, score_out_of_time
from stages.traces.teachers.ranker_explained import EXPLAINED, RankerExplainedTeacher
from stages.traces.teachers.teacher import StatisticalTeacher
from tests.support.traces_data import CATALOG, LAYOUT, SCORER, make_slates

SLATES = make_slates()
CHAT = ChatLayout(CATALOG, PromptParams(layout="chat", titles=True))
SCORED = score_out_of_time(SLATES, 3, CHAT, 7, 1, SCORER, explained=True)
TEACHER = RankerExplainedTeacher(CHAT, 0.02, 7, targeted=False)


def sentences(trace):
    """Step 3, by letter."""
    return {line.split("andidate ")[1][0]: line for line in trace.split("3. Match:\n")[1].split(STEP_ORDER)[0].splitlines()}


def test_contributions_and_a_constant_add_up_to_the_score():
    features, targets = feature_array(SLATES, CHAT.features), np.array([slate.target_rank for slate in SLATES])
    boosters = lambdamart.fit_ensemble(features, targets, 7, 1, SCORER, SCORER.members)
    rest = lambdamart.mean_scores(boosters, features) - lambdamart.mean_contributions(boosters, features).sum(axis=2)
    assert np.ptp(rest) < 1e-6 and np.ptp(lambdamart.mean_scores(boosters, features)) > 0.1
    for scored in (SCORED, label_by_latest(SCORED, SLATES, CHAT, 7, 1, SCORER, explained=True)):
        for fold in (1, 2) if scored is SCORED else (0,):
            rows = [one for one in scored if fold in (0, one.fold)]
            assert np.ptp([one.scores - one.contributions.sum(axis=1) for one in rows]) < 1e-6


@pytest.mark.parametrize("scored", SCORED[:40], ids=lambda one: str(one.slate.slate))
def test_the_first_candidates_are_explained_by_what_adds_most(scored):
    shown = scored.shown_as([3, 1, 4, 0, 2])
    [proposal] = TEACHER.propose([shown], 0)
    said = sentences(proposal.trace)
    for place, rank in enumerate(proposal.order):
        line, weights = said["ABCDE"[rank]], shown.contributions[rank]
        explained = re.search(r"\(((?:for it|nothing).*?)\)", line)
        assert bool(explained) == (place < EXPLAINED)
        if not explained:
            continue
        words = [f"{WORDS[feature]} {level}" for feature, level in zip(CHAT.features, shown.slate.bins[rank], strict=True)]
        supports = re.search(r"for it speaks? ([a-z -]+ \d)", explained[1])
        objects = re.search(r"against it speaks? ([a-z -]+ \d)", explained[1])
        assert (supports and supports[1]) == (words[int(np.argmax(weights))] if weights.max() > 0 else None)
        assert (objects and objects[1]) == (words[int(np.argmin(weights))] if weights.min() < 0 else None)
    answer = CHAT.answer(shown.slate, proposal.order, proposal.cited)
    best = CHAT.features[int(np.argmax(shown.contributions[proposal.order[0]]))]
    assert WORDS[best] in json.loads(answer.removesuffix(END))["explanation"] and proposal.cited[0] == best


def test_it_is_grounded_and_goes_through_the_same_loop():
    log = sample(TEACHER, TraceChecks(CHAT), SCORED, 3, 2, 3, 7)
    plain = sample(StatisticalTeacher(CHAT, 0.02, 7, targeted=False), TraceChecks(CHAT), SCORED, 3, 2, 3, 7)
    assert log.kept and dict(log.faults) == {}
    assert [(kept.proposal.order, kept.shown, kept.attempt) for kept in log.kept] == [
        (kept.proposal.order, kept.shown, kept.attempt) for kept in plain.kept
    ]
    for kept in log.kept[:50]:
        claims = CHAT.claims(kept.proposal.trace)
        assert claims.relevances == dict(zip("ABCDE", kept.proposal.relevances, strict=True))
        for rank, name in enumerate("ABCDE"):
            assert not claims.misquotes(name, kept.scored.slate.words(rank))


def test_in_compact_it_writes_the_ordinary_trace():
    statistical, explained = (kind(LAYOUT, 0.5, 7, targeted=False) for kind in (StatisticalTeacher, RankerExplainedTeacher))
    assert statistical.propose(SCORED[:20], 1) == explained.propose(SCORED[:20], 1)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([0.1, 0.3, -0.2], " (for it speak b 2 and a 1; against it speaks c 3)"),
        ([0.0, 0.3, 0.0], " (for it speaks b 2)"),
        ([-0.1, -0.3, -0.2], " (nothing speaks for it; against it speak b 2 and c 3)"),
        ([0.0, 0.0, 0.0], ""),
    ],
)
def test_what_is_said_of_weights(weights, said):
    assert weighing(["a 1", "b 2", "c 3"], weights) == said

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from stages.traces.acceptance.audit import chance_audit
from stages.traces.acceptance.checks import TraceChecks
from stages.traces.acceptance.rejection import sample
from stages.traces.acceptance.verification import ShuffledVerification
from stages.traces.params import TracesParams
from stages.traces.teachers.random_order import RandomTeacher
from stages.traces.teachers.teacher import Proposal, StatisticalTeacher
from tests.support.traces_data import LAYOUT, many_slates, scored_slates

SLATES = many_slates(500)
ATTEMPTS = TracesParams.model_validate({}).attempts


def verified(teacher, slates, shuffles, share=1.0, attempts=ATTEMPTS, shuffle_seed=7):
    verification = ShuffledVerification(shuffles, share, attempts, 7)
    log = sample(teacher, TraceChecks(LAYOUT), slates, attempts, 1, None, shuffle_seed, verification)
    return log, chance_audit(log, slates, attempts, None, shuffle_seed is not None, verification)


class CopyTeacher:
    """Repeats the order shown."""

    attempts = None

    def propose(self, slates, attempt):
        return [Proposal(f" try{attempt}", tuple(range(len(one.scores)))) for one in slates]


class CountingTeacher(StatisticalTeacher):
    """Right at the attempts named, otherwise wrong, whatever is shown; remembers what it was asked."""

    def __init__(self, right):
        super().__init__(LAYOUT, 0.5, 7, targeted=False)
        self.right_at, self.asked = set(right), []

    def propose(self, slates, attempt):
        self.asked += [(attempt, tuple(one.slate.candidates)) for one in slates]
        orders = [np.roll(np.arange(len(one.scores)), -one.slate.target_rank - (attempt not in self.right_at)) for one in slates]
        return [Proposal(f" try{attempt}", tuple(order.tolist())) for order in orders]


def test_a_random_teacher_passes_plain_acceptance_and_not_the_corrected_one():
    """Ten candidates and the default attempts: more than half of the slates, and under 2 % of what plain acceptance keeps;
    under 2 % of the slates with two further orders."""
    plain = sample(RandomTeacher(LAYOUT, 7), TraceChecks(LAYOUT), SLATES, ATTEMPTS, 1, None, 7)
    log, audit = verified(RandomTeacher(LAYOUT, 7), SLATES, 3)
    assert len(plain.kept) / len(SLATES) > 0.5 and audit["accepted_unverified_share"] == len(plain.kept) / len(SLATES)
    assert len(log.kept) < 0.02 * len(plain.kept) and log.total("unverified") > len(SLATES) / 2
    assert audit["chance"]["blind_guess_verified"] == pytest.approx(1 - (1 - 1e-4) ** ATTEMPTS) and audit["faults"] == {}
    assert verified(RandomTeacher(LAYOUT, 7), SLATES, 2)[1]["accepted_share"] < 0.02


@pytest.mark.parametrize(("shuffles", "share"), [(1, 1.0), (3, 0.3), (2, 1.0)])
def test_chance_passes_as_often_as_the_audit_says(shuffles, share):
    _, audit = verified(RandomTeacher(LAYOUT, 3), SLATES, shuffles, share)
    chance = audit["chance"]["blind_guess_verified"]
    assert audit["accepted_share"] == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / len(SLATES)))
    assert audit["accepted_unverified_share"] == pytest.approx(audit["chance"]["blind_guess_at_cap"], abs=0.09)


@pytest.mark.parametrize("shuffle_seed", [None, 7])
def test_a_copy_of_the_order_shown_passes_as_often_as_the_audit_says(shuffle_seed):
    _, audit = verified(CopyTeacher(), SLATES, 1, shuffle_seed=shuffle_seed)
    chance = audit["chance"]
    for share, expected in (("accepted_unverified_share", "copying_shown_at_cap"), ("accepted_share", "copying_shown_verified")):
        assert audit[share] == pytest.approx(chance[expected], abs=0.09)
    if shuffle_seed is None:
        assert audit["accepted_unverified_share"] == chance["copying_incoming"]


def test_a_teacher_that_knows_is_confirmed():
    slates = scored_slates()
    plain = sample(StatisticalTeacher(LAYOUT, 0.02, 7, targeted=False), TraceChecks(LAYOUT), slates, 1, 1, None, 7)
    log, _ = verified(StatisticalTeacher(LAYOUT, 0.02, 7, targeted=False), slates, 2, attempts=1)
    assert len(log.kept) > 0.8 * len(plain.kept) > 40


@pytest.mark.parametrize(
    ("share", "right", "kept", "asked"),
    [
        (1.0, {0, 2, 3, 4, 5}, 1, 4),  # attempts 2..5 are the four orders of the first try
        (1.0, {0, 3, 4, 5}, 0, 1),  # one failure settles it
        (0.5, {0, 2, 3}, 1, 2),  # two successes settle it
        (0.5, {0, 3, 5}, 1, 4),
        (0.5, {0, 5}, 0, 3),
    ],
)
def test_a_slate_is_asked_about_until_its_fate_is_settled(share, right, kept, asked):
    teacher = CountingTeacher(right)
    log, audit = verified(teacher, SLATES[:1], 4, share, attempts=2)
    again = [row for row in teacher.asked if 2 <= row[0] < 6]
    assert (len(log.kept), len(again)) == (kept, asked) and len(set(teacher.asked)) == len(teacher.asked)
    assert audit["asked_again"] == asked and audit["unverified"] == 1 - kept


def test_other_orders_are_other_ones_and_depend_on_the_slate_alone():
    verification = ShuffledVerification(5, 1.0, 8, 7)
    for one in SLATES[:20]:
        orders = verification.other_orders(one, tuple(range(10)), 3)
        assert len({*orders, tuple(range(10))}) == 6 and orders == verification.other_orders(one, tuple(range(10)), 3)
        assert orders != verification.other_orders(one, tuple(range(10)), 4)
    [tiny] = many_slates(1, k=2)
    assert Counter(map(len, verification.other_orders(tiny, (0, 1), 0))) == {2: 5}, "two candidates have one other order only"


def test_nothing_is_confirmed_of_a_teacher_that_sees_the_answer():
    with pytest.raises(ValidationError, match="verify_shuffles confirms nothing of a trace in mode targeted"):
        TracesParams.model_validate({"mode": "targeted", "verify_shuffles": 1})

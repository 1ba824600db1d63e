"""Rejection sampling, the same loop for every teacher: try, compare the first of the order with the target, keep or try again."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stages.shared.core.progress import tracked
from stages.traces.acceptance.checks import TraceChecks
from stages.traces.acceptance.kept import Kept
from stages.traces.acceptance.repair import Repairs
from stages.traces.acceptance.verification import ShuffledVerification
from stages.traces.out_of_time import ScoredSlate
from stages.traces.teachers.teacher import Teacher


@dataclass
class SlateLog:
    """What became of one slate. tries: proposals asked for; right: those that put the target first, kept or not; luck: right although the
    features say otherwise; repeated: right with a trace that was kept before; unverified: right, and not again in other orders; continued:
    tries that went on from steps of an earlier one; improbable: accepted traces dropped again for the student (student_fit.py)."""

    tries: int = 0
    right: int = 0
    luck: int = 0
    repeated: int = 0
    unverified: int = 0
    continued: int = 0
    improbable: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    kept: list[Kept] = field(default_factory=list)

    @property
    def accepted_unverified(self) -> bool:
        """Whether plain acceptance would have kept a trace."""
        return bool(self.kept) or self.unverified + self.improbable > 0


@dataclass
class RejectionLog:
    """What happened. tried, right [attempts]: slates tried, and those whose order put the target first (kept or not); slates: one entry
    each; asked_again: questions of the verification."""

    slates: list[SlateLog]
    tried: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    asked_again: int = 0

    @property
    def kept(self) -> list[Kept]:
        """By slate, then attempt."""
        return [kept for one in self.slates for kept in one.kept]

    @property
    def tries(self) -> list[int]:
        return [one.tries for one in self.slates]

    @property
    def faults(self) -> Counter[str]:
        return sum((one.faults for one in self.slates), Counter())

    def total(self, name: str) -> int:
        """Of a count of SlateLog, over all slates."""
        return sum(getattr(one, name) for one in self.slates)


def sample(
    teacher: Teacher,
    checks: TraceChecks,
    slates: Sequence[ScoredSlate],
    attempts: int,
    keep: int,
    max_noise_rank: int | None,
    shuffle_seed: int | None = None,
    verification: ShuffledVerification | None = None,
    repairs: Repairs | None = None,
) -> RejectionLog:
    """Up to `attempts` tries a slate until `keep` different traces put the target first, and again in other orders under `verification`.

    shuffle_seed: every try shows the candidates in an order of its own; None = in the initial ranking. repairs: a try after one that was
    refused goes on from the steps of it that hold.

    A slate whose target a scorer that has not seen it ranks at max_noise_rank or below (from 0) leaves the loop when a try is right by
    luck: nothing in the features supports it, and a student could only learn to invent. None = no such rule.
    """
    log = RejectionLog([SlateLog() for _ in slates])
    open_slates = list(range(len(slates)))
    limit = attempts if teacher.attempts is None else min(attempts, teacher.attempts)
    for attempt in tracked(range(limit), "tries", unit="try"):
        if not open_slates:
            break
        passed: list[tuple[int, Kept]] = []
        for i, kept in ask(teacher, checks, slates, open_slates, attempt, shuffle_seed, log, repairs):
            one = log.slates[i]
            if not kept.right:
                continue
            # Leaves the loop without a trace: another lucky try would teach the student to invent reasons.
            if max_noise_rank is not None and slates[i].support >= max_noise_rank:
                one.luck += 1
            # The same trace twice would only weigh this slate more than others in sft.
            elif any((other.proposal, other.shown) == (kept.proposal, kept.shown) for other in one.kept):
                one.repeated += 1
            else:
                passed.append((i, kept))
        confirmed = [True] * len(passed)
        if verification:
            confirmed, asked = verification.passing(teacher, [(slates[i], kept.shown) for i, kept in passed], attempt)
            log.asked_again += asked
        for (i, kept), holds in zip(passed, confirmed, strict=True):
            if holds:
                log.slates[i].kept.append(kept)
            else:
                log.slates[i].unverified += 1
        open_slates = [i for i in open_slates if not log.slates[i].luck and len(log.slates[i].kept) < keep]
    return log


def ask(
    teacher: Teacher,
    checks: TraceChecks,
    slates: Sequence[ScoredSlate],
    places: Sequence[int],
    attempt: int,
    shuffle_seed: int | None,
    log: RejectionLog,
    repairs: Repairs | None = None,
) -> list[tuple[int, Kept]]:
    """One try at the slates at `places`, counted in `log`: those proposals that could be read and hold the checks, right or not."""
    orders = [order_shown(slates[i], attempt, shuffle_seed) for i in places]
    begun = [""] * len(places)
    if repairs:
        orders = [repairs.order(i, order) for i, order in zip(places, orders, strict=True)]
        begun = [repairs.begun(i) for i in places]
    shown_slates = [slates[i].shown_as(order) for i, order in zip(places, orders, strict=True)]
    proposals = repairs.propose(shown_slates, attempt, begun) if repairs else teacher.propose(shown_slates, attempt)
    log.tried.append(len(places))
    log.right.append(0)
    readable: list[tuple[int, Kept]] = []
    for i, proposal, scored, order, prefix in zip(places, proposals, shown_slates, orders, begun, strict=True):
        one, kept = log.slates[i], Kept(scored, proposal, attempt + 1, order, continued=bool(prefix))
        one.tries += 1
        one.continued += kept.continued
        fault = checks.fault(proposal, scored)
        if fault or proposal.order is None:
            one.faults[fault] += 1
        else:
            readable.append((i, kept))
            one.right += kept.right
            log.right[-1] += kept.right
        if repairs:
            repairs.note(i, kept, fault)
    return readable


def order_shown(scored: ScoredSlate, attempt: int, seed: int | None) -> tuple[int, ...]:
    """The initial ranks in the order in which a try shows them; it depends on the seed, the slate's id and the attempt alone."""
    count = len(scored.scores)
    if seed is None:
        return tuple(range(count))
    # A stream apart from the teacher's noise, which has the first three of these numbers.
    return tuple(np.random.default_rng([seed, scored.slate.slate, attempt, 1]).permutation(count).tolist())

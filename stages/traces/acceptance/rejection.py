"""Rejection sampling, the same loop for every teacher: try, compare the first of the order with the target, keep or try again."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stages.shared.core.progress import tracked
from stages.shared.slates.layouts.layout import Layout
from stages.traces.out_of_time import ScoredSlate
from stages.traces.teachers.teacher import Proposal, Teacher


@dataclass(frozen=True)
class Kept:
    """An accepted proposal; `attempt` counts from 1. scored: as the teacher saw it; shown: the initial ranks in that order."""

    scored: ScoredSlate
    proposal: Proposal
    attempt: int
    shown: tuple[int, ...]


@dataclass
class RejectionLog:
    """What happened. tried, right [attempts]: slates tried, and those whose order put the target first (kept or not).

    tries [slates]: proposals asked for each slate. luck: slates that were right although the features say otherwise.
    """

    kept: list[Kept] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    tries: list[int] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    luck: int = 0
    repeated: int = 0


def sample(
    teacher: Teacher,
    layout: Layout,
    slates: Sequence[ScoredSlate],
    attempts: int,
    keep: int,
    max_noise_rank: int | None,
    shuffle_seed: int | None = None,
) -> RejectionLog:
    """Up to `attempts` tries a slate until `keep` different traces put the target first.

    shuffle_seed: every try shows the candidates in an order of its own; None = in the initial ranking.

    A slate whose target a scorer that has not seen it ranks at max_noise_rank or below (from 0) leaves the loop when a try is right by
    luck: nothing in the features supports it, and a student could only learn to invent. None = no such rule.
    """
    log = RejectionLog(tries=[0] * len(slates))
    accepted: list[list[Kept]] = [[] for _ in slates]
    open_slates = list(range(len(slates)))
    limit = attempts if teacher.attempts is None else min(attempts, teacher.attempts)
    for attempt in tracked(range(limit), "tries", unit="try"):
        if not open_slates:
            break
        orders = [order_shown(slates[i], attempt, shuffle_seed) for i in open_slates]
        shown_slates = [slates[i].shown_as(order) for i, order in zip(open_slates, orders, strict=True)]
        proposals = teacher.propose(shown_slates, attempt)
        right, still_open = 0, []
        for i, proposal, scored, order in zip(open_slates, proposals, shown_slates, orders, strict=True):
            log.tries[i] += 1
            fault = proposal.fault or ("unfounded" if layout.unfounded(proposal.trace, scored.slate) else "")
            if fault or proposal.order is None:
                log.faults[fault] += 1
            elif proposal.order[0] == scored.slate.target_rank:
                right += 1
                # Leaves the loop without a trace: another lucky try would teach the student to invent reasons.
                if max_noise_rank is not None and slates[i].unseen_rank >= max_noise_rank:
                    log.luck += 1
                    continue
                # The same trace twice would only weigh this slate more than others in sft.
                if any((kept.proposal, kept.shown) == (proposal, order) for kept in accepted[i]):
                    log.repeated += 1
                else:
                    accepted[i].append(Kept(scored, proposal, attempt + 1, order))
            if len(accepted[i]) < keep:
                still_open.append(i)
        log.tried.append(len(open_slates))
        log.right.append(right)
        open_slates = still_open
    log.kept = [kept for kept_of_slate in accepted for kept in kept_of_slate]
    return log


def order_shown(scored: ScoredSlate, attempt: int, seed: int | None) -> tuple[int, ...]:
    """The initial ranks in the order in which a try shows them; it depends on the seed, the slate's id and the attempt alone."""
    count = len(scored.scores)
    if seed is None:
        return tuple(range(count))
    # A stream apart from the teacher's noise, which has the first three of these numbers.
    return tuple(np.random.default_rng([seed, scored.slate.slate, attempt, 1]).permutation(count).tolist())

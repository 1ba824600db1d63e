"""Repair of refused traces: find the first wrong step, keep what is before it, sample anew from there (Thought-ICS, arXiv 2602.02416).

There the model, or an oracle, says which step is wrong; here the checks do that traces must hold in any case, and the target: so a repaired
trace being right says less of its teacher than one that was right at once (traces.verify_shuffles asks again without repair).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stages.shared.slates.layouts.marks import letters
from stages.shared.slates.slate import order_of
from stages.traces.acceptance.checks import TraceChecks
from stages.traces.acceptance.kept import Kept
from stages.traces.out_of_time import ScoredSlate
from stages.traces.teachers.asked_teacher import AskedTeacher
from stages.traces.teachers.teacher import Proposal

CONTINUED = 2  # times in a row: if those come to nothing, the mistake may be in what was kept, and the next try begins anew
_COMPACT_STEP = re.compile(r".*?(?: 2 match:| [A-Z] s\d+(?!\d)|\Z)", re.DOTALL)


@dataclass(frozen=True)
class _Begun:
    order: tuple[int, ...]
    prefix: str
    times: int


class Repairs:
    """What the next try at each slate goes on from, for one run of the loop. Slates are named by their place in it."""

    def __init__(self, teacher: AskedTeacher, checks: TraceChecks):
        self.teacher, self.checks = teacher, checks
        self._begun: dict[int, _Begun] = {}

    def order(self, place: int, otherwise: tuple[int, ...]) -> tuple[int, ...]:
        """In which a slate is shown: that of the trace which goes on."""
        return self._begun[place].order if place in self._begun else otherwise

    def begun(self, place: int) -> str:
        return self._begun[place].prefix if place in self._begun else ""

    def propose(self, slates: Sequence[ScoredSlate], attempt: int, begun: Sequence[str]) -> list[Proposal]:
        return self.teacher.propose(slates, attempt, begun)

    def note(self, place: int, kept: Kept, fault: str) -> None:
        """What became of a try."""
        before = self._begun.pop(place, None)
        times = before.times + 1 if before else 1
        if (fault or not kept.right) and times <= CONTINUED and (prefix := right_steps(self.checks, kept, fault)):
            self._begun[place] = _Begun(kept.shown, prefix, times)


def right_steps(checks: TraceChecks, kept: Kept, fault: str) -> str:
    """The refused trace up to its first wrong step; all of it where only the answer after it is wrong; "" where nothing can be kept."""
    held = ""
    steps = steps_of(kept.proposal.trace, checks.layout.dialogue)
    for number, step in enumerate(steps):
        # The last step of a trace that was cut may be half a one.
        if _wrong(checks, held + step, kept) or (fault == "unfinished" and number == len(steps) - 1):
            return held
        held += step
    levels = checks.layout.claims(held).relevances
    return held if len(levels) == len(kept.shown) else ""


def steps_of(trace: str, dialogue: bool) -> list[str]:
    """The steps, which joined are the trace: in `chat` its lines; in `compact` the pattern, then what is said of each candidate."""
    return trace.splitlines(keepends=True) if dialogue else [step for step in _COMPACT_STEP.findall(trace) if step]


def _wrong(checks: TraceChecks, trace: str, kept: Kept) -> bool:
    """Whether a trace that ends here cites what is not shown, gives the target away, or judges another candidate above the target."""
    slate = kept.scored.slate
    if checks.layout.unfounded(trace, slate) or (checks.targeted and checks.says_it_was_given(trace, slate)):
        return True
    names = [name.strip() for name in letters(len(kept.shown))]
    levels = checks.layout.claims(trace).relevances
    if any(level >= checks.layout.levels for level in levels.values()):
        return True
    judged = [levels.get(name, -1) for name in names]
    return judged[slate.target_rank] >= 0 and order_of(judged)[0] not in slate.best_ranks

"""A proposal on its way to traces.parquet."""

from dataclasses import dataclass

from stages.traces.out_of_time import ScoredSlate
from stages.traces.teachers.teacher import Proposal


@dataclass(frozen=True)
class Kept:
    """attempt: counts from 1. scored: the slate as the teacher saw it; shown: the initial ranks in that order; continued: it went on from
    steps of an earlier one."""

    scored: ScoredSlate
    proposal: Proposal
    attempt: int
    shown: tuple[int, ...]
    continued: bool = False

    @property
    def right(self) -> bool:
        """Whether the target comes first, or another of the highest grade."""
        return self.proposal.order is not None and self.proposal.order[0] in self.scored.slate.best_ranks

"""What every trace must keep to, whoever wrote it: the prompt, its own answer, and the student's budget."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from stages.shared.lm.models import load_tokenizer
from stages.shared.lm.packaged import folder_of
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.layouts.marks import letters
from stages.shared.slates.layouts.outside_text import without_strings
from stages.shared.slates.sids import SID_BEGIN, SID_END
from stages.shared.slates.slate import Slate
from stages.traces.out_of_time import ScoredSlate
from stages.traces.params import NO_MODEL
from stages.traces.teachers.teacher import Proposal

_SID = rf"{re.escape(SID_BEGIN)}[^|]*{re.escape(SID_END)}"
_NAME = rf"(?:[Cc]andidate ([A-Z])\b(?: {_SID})?|({_SID}))"
_UP_TO = r"(?:(?![Cc]andidate)[^.;\n]){0,40}?"  # of the same candidate: not past the next one's name
_CHOICE = r"(?:choice|pick|candidate|recommendation)"
# "Candidate B comes first", "candidate B fits the history best", "the best choice is candidate B".
_FIRST = [
    re.compile(
        rf"{_NAME}{_UP_TO}\b(?:(?:comes|goes|ranks?|is|stands) (?:ranked )?first|fits (?:\w+ ){{0,3}}best|continues \w+ \w+ most"
        rf"|is the (?:best|top|first|strongest) {_CHOICE})"
    ),
    re.compile(rf"\b(?i:best|top|first|strongest) (?:{_CHOICE}|evidence)(?: overall)? is (?:that of )?{_NAME}"),
]
_TOOK = r"(?:took|takes|chose|chooses|picked|selected|bought|watched|went (?:on )?(?:with|for))"
# What only one who was shown the answer can say. That a user "took items in" a category is no such thing.
_GIVEN = re.compile(
    r"\b(?:correct|actual|true) (?:answer|choice|candidate|item|target)\b|\bground[- ]truth\b|\bthe target\b"
    r"|\bas (?:was |were |I was |we were )?(?:given|told|instructed|revealed)\b(?! order)"
    r"|\b(?:I|we) (?:already )?(?:know|were told|was told)\b"
    rf"|\bthe user (?:\w+ )?{_TOOK} (?:candidate [A-Z]\b|it\b|this (?:item|one|candidate)\b|that (?:item|one)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class TraceBudget:
    """max_tokens: of a trace; count: how many a text has."""

    max_tokens: int
    count: Callable[[str], int]

    @classmethod
    def of_student(cls, max_tokens: int, model: str) -> "TraceBudget | None":
        """In tokens of the student's tokenizer at `model`, or in words where none is named; None without a limit."""
        if not max_tokens:
            return None
        if model == NO_MODEL:
            return cls(max_tokens, lambda text: len(text.split()))
        tokenizer = load_tokenizer(folder_of(model))
        return cls(max_tokens, lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]))


@dataclass(frozen=True)
class TraceChecks:
    """targeted: the teacher was shown the answer, and may not say so."""

    layout: Layout
    targeted: bool = False
    budget: TraceBudget | None = None

    def fault(self, proposal: Proposal, scored: ScoredSlate) -> str:
        """The proposal's own fault, or what is wrong with its trace; else "".

        "unfounded": it cites what its prompt does not show; "first_choice": it calls another candidate the first than its answer does;
        "target_given": it says that it was shown the answer; "too_long".
        """
        if proposal.fault or proposal.order is None:
            return proposal.fault
        if self.layout.unfounded(proposal.trace, scored.slate):
            return "unfounded"
        if self.names_another_first(proposal, scored.slate):
            return "first_choice"
        if self.targeted and self.says_it_was_given(proposal.trace, scored.slate):
            return "target_given"
        return "too_long" if self.budget and self.budget.count(proposal.trace) > self.budget.max_tokens else ""

    def names_another_first(self, proposal: Proposal, slate: Slate) -> bool:
        """Whether trace or explanation call a candidate the first, or judge one higher, that is not the answer's first; also whether the
        explanation names candidates and the answer's first is not among them."""
        assert proposal.order is not None
        rank = proposal.order[0]
        first, sid = letters(len(slate.candidates))[rank].strip(), self._sid(slate, rank)
        levels = self.layout.claims(proposal.trace).relevances
        if first in levels and levels[first] < max(levels.values()):
            return True
        explanation = without_strings(proposal.explanation)
        spoken = f"{without_strings(proposal.trace)}\n{explanation}"
        called = [name for pattern in _FIRST for name in pattern.findall(spoken)]
        named = {name for pair in re.findall(_NAME, explanation) for name in pair if name}
        return any(name not in ((first, ""), ("", sid)) for name in called) or bool(named and not named & {first, sid})

    def says_it_was_given(self, trace: str, slate: Slate) -> bool:
        spoken, target = without_strings(trace), re.escape(self._sid(slate, slate.target_rank))
        return bool(_GIVEN.search(spoken) or re.search(rf"\bthe user (?:\w+ )?{_TOOK} (?:\w+ )?{target}", spoken, re.IGNORECASE))

    def _sid(self, slate: Slate, rank: int) -> str:
        return self.layout.shown_sids(slate)[-len(slate.candidates) :][rank]

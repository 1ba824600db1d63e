"""Constrained decoding: what may come next in a completion so that its answer is a permutation of the slate.

The model still chooses: in the match step any relevance not yet given, in the answer any candidate not yet named. What it would have
answered without the constraint is measured separately (stages/evaluate).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from stages.shared.slates.prompts import END, LETTERS, RELEVANCE_LEVELS, STEP_MATCH, THINK_END
from stages.shared.slates.sids import SID_BEGIN, SID_END

DRAFT = 8  # tokens guessed ahead at most: one candidate of an answer with its lead; a wrong guess costs as much as a right one


@dataclass(frozen=True)
class LayoutTokenIds:
    """Token ids of the layout. match, relevances and letters are empty where the tokenizer splits those words (pretrained ones may)."""

    begin: int
    close: int
    think_end: int
    end: int
    match: list[int]
    relevances: list[int]
    letters: list[int]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "LayoutTokenIds":
        begin, close, think_end, end = (tokenizer.get_vocab()[token] for token in (SID_BEGIN, SID_END, THINK_END, END))

        def whole(words: Sequence[str]) -> list[int]:
            rows = tokenizer(list(words), add_special_tokens=False)["input_ids"]
            return [row[0] for row in rows] if all(len(row) == 1 for row in rows) else []

        match, relevances, letters = (
            whole([STEP_MATCH.removeprefix(" 3")]),
            whole([f" s{relevance}" for relevance in range(RELEVANCE_LEVELS)]),
            whole(LETTERS),
        )
        if not (match and relevances and letters):
            match, relevances, letters = [], [], []
        return cls(begin, close, think_end, end, match, relevances, letters)


@dataclass(frozen=True)
class TokenMask:
    """`allow`: only `ids` may come next; otherwise anything except `ids`."""

    allow: bool
    ids: list[int]


@dataclass(frozen=True)
class PermutationConstraint:
    """Plain numbers, so that it can travel to another process. candidates: token ids of each SID, in incoming order."""

    layout: LayoutTokenIds
    candidates: list[list[int]]
    reasoning: bool

    def start(self) -> "ConstraintState":
        return ConstraintState(self, thinking=self.reasoning)


@dataclass
class ConstraintState:
    """The state of one completion. given: relevances of the match step; named: candidates in the answer; partial: the SID begun.

    letter: the candidate whose letter was written last, -1 before any; relevance_of: candidate -> token of its relevance in the match step.
    """

    constraint: PermutationConstraint
    thinking: bool
    matching: bool = False
    given: list[int] = field(default_factory=list)
    named: set[int] = field(default_factory=set)
    partial: list[int] = field(default_factory=list)
    last: int = -1
    letter: int = -1
    relevance_of: dict[int, int] = field(default_factory=dict)

    def copy(self) -> "ConstraintState":
        return replace(self, given=[*self.given], named={*self.named}, partial=[*self.partial], relevance_of={**self.relevance_of})

    def advance(self, token: int) -> None:
        layout, self.last = self.constraint.layout, token
        if token in layout.letters:
            self.letter = layout.letters.index(token)
        if self.thinking:
            self.thinking = token != layout.think_end
            self.matching |= token in layout.match
            if self.matching and token in layout.relevances:
                self.given.append(token)
                self.relevance_of.setdefault(self.letter, token)
        elif self.partial or token == layout.begin:
            self.partial.append(token)
            if self.partial in self.constraint.candidates:
                self.named.add(self.constraint.candidates.index(self.partial))
                self.partial = []

    def draft(self) -> list[int]:
        """What a completion that agrees with itself would say next, as far as it is determined; only a guess.

        A letter stands for its SID, the match step goes through the letters, and the answer follows the relevances given there.
        """
        layout, candidates = self.constraint.layout, self.constraint.candidates
        if self.thinking:
            if self.last == layout.begin and 0 <= self.letter < len(candidates):
                return candidates[self.letter][1:]
            if self.matching and self.last in layout.relevances and self.letter + 1 < len(candidates):
                return [layout.letters[self.letter + 1]]
            return []
        left = [rank for rank in range(len(candidates)) if rank not in self.named]
        if self.partial:
            fit = [rank for rank in left if candidates[rank][: len(self.partial)] == self.partial]
            begun = self.letter if self.letter in fit else fit[0] if len(fit) == 1 else None
            guess = candidates[begun][len(self.partial) :] if begun is not None else []
        elif self.last in layout.letters:
            begun = self.letter if self.letter in left else None
            guess = candidates[begun] if begun is not None else [layout.begin]
        elif self.last in layout.relevances:
            begun = next((rank for rank in left if self.relevance_of.get(rank) == self.last), None)
            guess = [layout.letters[begun], *candidates[begun]] if begun is not None else []
        else:
            begun, guess = -1, []
        if begun is None:
            return list(guess)
        after = [rank for rank in left if rank != begun]
        if not after or not layout.letters or not self.constraint.reasoning:
            return [*guess, *([layout.begin] if after and not self.constraint.reasoning else [])][:DRAFT]
        for rank in sorted(after, key=lambda rank: -layout.relevances.index(self.relevance_of.get(rank, layout.relevances[0]))):
            if rank not in self.relevance_of or len(guess) >= DRAFT:
                break
            guess = [*guess, self.relevance_of[rank], layout.letters[rank], *candidates[rank]]
        return list(guess[:DRAFT])

    def mask(self) -> TokenMask:
        """What may come next."""
        layout, candidates = self.constraint.layout, self.constraint.candidates
        # Thinking is free text, apart from the end token and the relevances that are already given.
        if self.thinking:
            return TokenMask(False, [layout.end, *self.given])
        left = [rank for rank in range(len(candidates)) if rank not in self.named]
        if self.partial:
            place = len(self.partial)
            return TokenMask(True, sorted({candidates[rank][place] for rank in left if candidates[rank][:place] == self.partial}))
        if not left:
            return TokenMask(True, [layout.end])
        if not self.constraint.reasoning or self.last in layout.letters:
            return TokenMask(True, [layout.begin])
        # This tokenizer splits the layout's words, so a lead cannot be masked token by token: only the early end is closed.
        if not layout.letters:
            return TokenMask(False, [layout.end])
        if self.last in layout.relevances:
            return TokenMask(True, [layout.letters[rank] for rank in left])
        return TokenMask(True, layout.relevances)

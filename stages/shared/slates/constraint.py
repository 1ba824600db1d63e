"""Decoding knows the slate: what may come next so that the answer is a permutation, and what is likely to come next.

The model still chooses: any trace, and in the answer any candidate not yet named. Without `enforced` nothing is forbidden, and only the
drafts remain: guesses that the engine checks against the model, so that they change its speed and not its words.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

DRAFT = 12  # tokens guessed ahead at most: the features of one candidate, or a whole answer of ten letters


@dataclass(frozen=True)
class LayoutTokenIds:
    """Token ids of the layout. relevances (by level) and letters are empty where the tokenizer splits those words."""

    think_end: int
    end: int
    relevances: list[int]
    letters: list[int]


@dataclass(frozen=True)
class TokenMask:
    """`allow`: only `ids` may come next; otherwise anything except `ids`."""

    allow: bool
    ids: list[int] | NDArray[np.int64]  # an array where many rows share it: thousands of tokens


FREE = TokenMask(False, [])


@dataclass(frozen=True)
class PermutationConstraint:
    """Plain numbers, so that it can travel to another process.

    names: what the answer calls each candidate, in the order shown. opening: how a trace begins; quotes: what it says of each candidate
    before its relevance; both are guesses. budget: tokens of the think block at most, its end not counted.
    """

    layout: LayoutTokenIds
    names: list[list[int]]
    reasoning: bool
    opening: list[int]
    quotes: list[list[int]]
    budget: int
    enforced: bool = True

    @property
    def closes(self) -> bool:
        """Whether any token is ever closed; otherwise all there is are guesses."""
        return self.enforced

    def start(self) -> "ConstraintState":
        return ConstraintState(self, thinking=self.reasoning)


@dataclass
class ConstraintState:
    """The state of one completion. thought: tokens of the think block; named: candidates in the answer; partial: the name begun.

    letter: the candidate whose letter was written last, -1 before any; relevance_of: candidate -> level its trace gave.
    """

    constraint: PermutationConstraint
    thinking: bool
    thought: int = 0
    named: list[int] = field(default_factory=list)
    partial: list[int] = field(default_factory=list)
    last: int = -1
    letter: int = -1
    relevance_of: dict[int, int] = field(default_factory=dict)

    def copy(self) -> "ConstraintState":
        return replace(self, named=[*self.named], partial=[*self.partial], relevance_of={**self.relevance_of})

    def advance(self, token: int) -> None:
        layout, self.last = self.constraint.layout, token
        if self.thinking:
            self.thought += 1
            self.thinking = token != layout.think_end
            if token in layout.letters:
                self.letter = layout.letters.index(token)
            elif token in layout.relevances and self.letter >= 0:
                self.relevance_of[self.letter] = layout.relevances.index(token)
            return
        self.partial.append(token)
        named = [rank for rank, name in enumerate(self.constraint.names) if name == self.partial]
        if named:
            # Two items may share a SID: named a second time, it is the second of them.
            self.named.append(next((rank for rank in named if rank not in self.named), named[-1]))
            self.partial = []

    def draft(self) -> list[int]:
        """What a completion that quotes right and agrees with itself would say next, as far as it is determined; only a guess."""
        return self._draft_trace() if self.thinking else self._draft_answer()

    def _draft_trace(self) -> list[int]:
        constraint, layout = self.constraint, self.constraint.layout
        if not constraint.quotes:
            return []
        # At the beginning, or within what the first draft was too short for.
        script = [*constraint.opening, *constraint.quotes[0]]
        follows = self.thought == 0 or (self.thought < len(script) and self.last == script[self.thought - 1])
        if follows and self.letter <= 0 and not self.relevance_of:
            return script[self.thought :][:DRAFT]
        if self.last not in layout.relevances:
            return []
        following = self.letter + 1
        if following < len(constraint.quotes):
            return constraint.quotes[following][:DRAFT]
        return [layout.think_end, *self._draft_answer()][:DRAFT]

    def _draft_answer(self) -> list[int]:
        names, end = self.constraint.names, self.constraint.layout.end
        left = [rank for rank in range(len(names)) if rank not in self.named]
        left.sort(key=lambda rank: -self.relevance_of.get(rank, -1))  # equals keep the order shown
        fitting = [rank for rank in left if names[rank][: len(self.partial)] == self.partial]
        if self.partial and not fitting:
            return []
        if not left:
            return [end]
        begun = names[fitting[0]][len(self.partial) :]
        if self.relevance_of:
            rest = [token for rank in left if rank != fitting[0] for token in names[rank]]
            return [*begun, *rest, end][:DRAFT]
        # Without relevances any order is as likely: only a name that is begun can be told to its end.
        return [*begun, *([end] if len(left) == 1 else [])][:DRAFT] if self.partial else []

    def mask(self) -> TokenMask:
        """What may come next."""
        constraint, layout = self.constraint, self.constraint.layout
        if not constraint.enforced:
            return FREE
        # Thinking is free text that must end, and end before the answer does.
        if self.thinking:
            return TokenMask(False, [layout.end]) if self.thought < constraint.budget else TokenMask(True, [layout.think_end])
        left = [name for rank, name in enumerate(constraint.names) if rank not in self.named]
        place = len(self.partial)
        fitting = [name for name in left if name[:place] == self.partial]
        return TokenMask(True, sorted({name[place] for name in fitting}) if fitting else [layout.end])

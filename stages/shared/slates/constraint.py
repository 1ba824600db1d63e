"""Decoding knows the slate: what may come next so that the answer is a permutation, and what is likely to come next.

The model still chooses: any trace, and in the answer any candidate not yet named. Without `enforced` nothing is forbidden, and only the
drafts remain: guesses that the engine checks against the model, so that they change its speed and not its words.
"""

from dataclasses import dataclass, field, replace

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
    ids: list[int]


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
        if self.partial in self.constraint.names:
            self.named.append(self.constraint.names.index(self.partial))
            self.partial = []

    def draft(self) -> list[int]:
        """What a completion that quotes right and agrees with itself would say next, as far as it is determined; only a guess."""
        return self._draft_trace() if self.thinking else self._draft_answer()

    def _draft_trace(self) -> list[int]:
        constraint, layout = self.constraint, self.constraint.layout
        if not constraint.quotes:
            return []
        if self.thought == 0:
            return [*constraint.opening, *constraint.quotes[0]][:DRAFT]
        # Within the opening or the first quote, where a draft was too short for all of it.
        script = [*constraint.opening, *constraint.quotes[0]]
        if self.letter <= 0 and not self.relevance_of and self.thought < len(script) and self.last == script[self.thought - 1]:
            return script[self.thought :][:DRAFT]
        if self.last not in layout.relevances:
            return []
        following = self.letter + 1
        if following < len(constraint.quotes):
            return constraint.quotes[following][:DRAFT]
        return [layout.think_end, *self._draft_answer()][:DRAFT]

    def _draft_answer(self) -> list[int]:
        names = self.constraint.names
        left = sorted(
            (rank for rank in range(len(names)) if rank not in self.named), key=lambda rank: (-self.relevance_of.get(rank, -1), rank)
        )
        begun = [rank for rank in left if names[rank][: len(self.partial)] == self.partial]
        if self.partial and not begun:
            return []
        if not self.relevance_of and not self.partial and left:
            return []  # without relevances any order is as likely
        first, *rest = [begun[0], *(rank for rank in left if rank != begun[0])] if begun else [-1]
        guess = [*names[first][len(self.partial) :]] if begun else []
        for rank in rest if self.relevance_of else []:
            guess += names[rank]
        return [*guess, self.constraint.layout.end][:DRAFT] if self.relevance_of or len(left) <= 1 else guess[:DRAFT]

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

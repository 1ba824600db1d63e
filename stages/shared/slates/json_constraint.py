"""Decoding of the layout `chat`: thoughts that end within their budget, then one JSON object whose list is a permutation.

The model still chooses: any thought, any explanation, and any candidate not yet named.
"""

from dataclasses import dataclass, field, replace

from stages.shared.slates.constraint import DRAFT, FREE, ConstraintState, PermutationConstraint, TokenMask
from stages.shared.slates.json_grammar import DEAD, DONE, EXPLANATION, MIDDLE, NAMES, Cursor, JsonGrammar

AFTER_THOUGHT = "\n\n"  # between the think block and the object, as thinking models have it


@dataclass(frozen=True)
class JsonConstraint(PermutationConstraint):
    """spelled: the names in the grammar's symbols. budget: of the think block; holds_budget: also where nothing else is enforced.

    explanation: tokens of the explanation at most, where the constraint is enforced.
    """

    grammar: JsonGrammar = field(kw_only=True)
    spelled: tuple[str, ...] = field(kw_only=True)
    explanation: int = field(kw_only=True)
    holds_budget: bool = field(kw_only=True, default=False)

    @property
    def closes(self) -> bool:
        return self.enforced or self.holds_budget

    def start(self) -> "JsonState":
        return JsonState(self, self.reasoning, cursor=self.grammar.start(AFTER_THOUGHT if self.reasoning else ""))


@dataclass
class JsonState(ConstraintState):
    """explained: tokens of the explanation so far."""

    constraint: JsonConstraint
    cursor: Cursor = DEAD
    explained: int = 0

    def copy(self) -> "JsonState":
        return replace(self)

    def advance(self, token: int) -> None:
        constraint = self.constraint
        if self.thinking:
            self.thought += 1
            self.thinking = token != constraint.layout.think_end
            return
        self.explained += self._explaining
        self.cursor = constraint.grammar.advance(self.cursor, token, constraint.spelled)

    def draft(self) -> list[int]:
        """What must come next in a valid answer. Thoughts are not guessed: their sentences vary."""
        if self.thinking:
            return []
        if self.cursor.part == DONE and not self.cursor.rest:
            return [self.constraint.layout.end]
        return self.constraint.grammar.forced(self.cursor, self.constraint.spelled)[:DRAFT]

    def mask(self) -> TokenMask:
        constraint, layout = self.constraint, self.constraint.layout
        if self.thinking:
            if (constraint.enforced or constraint.holds_budget) and self.thought >= constraint.budget:
                return TokenMask(True, [layout.think_end])
            return TokenMask(False, [layout.end]) if constraint.enforced else FREE
        if not constraint.enforced:
            return FREE
        if self.cursor.part == DONE and not self.cursor.rest:
            return TokenMask(True, [layout.end])
        if not self._explaining:
            return TokenMask(True, constraint.grammar.allowed(self.cursor, constraint.spelled))
        if self.explained < constraint.explanation:
            return TokenMask(False, constraint.grammar.closed_in_explanation)
        return TokenMask(True, constraint.grammar.allowed(Cursor(MIDDLE, NAMES), constraint.spelled))

    @property
    def _explaining(self) -> bool:
        return self.cursor.part == EXPLANATION and not self.cursor.rest

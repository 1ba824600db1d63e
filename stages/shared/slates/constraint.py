"""Constrained decoding: what a completion may say next so that its answer is a permutation of the slate.

The model still chooses: in the match step any strength not yet given, in the answer any candidate not yet named. What it would have
answered unguided is measured beside it (stages/evaluate).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from stages.shared.slates.prompts import END, LETTERS, STEP_MATCH, STRENGTHS, THINK_END
from stages.shared.slates.sids import SID_BEGIN, SID_END

DRAFT = 8  # tokens guessed ahead at most: a candidate of an answer, with what leads it; a wrong guess is paid for too


@dataclass(frozen=True)
class Words:
    """Token ids of the layout. match, strengths and letters are empty where the tokenizer splits those words (pretrained ones may)."""

    begin: int
    close: int
    think_end: int
    end: int
    match: list[int]
    strengths: list[int]
    letters: list[int]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Words":
        begin, close, think_end, end = (tokenizer.get_vocab()[token] for token in (SID_BEGIN, SID_END, THINK_END, END))

        def whole(words: Sequence[str]) -> list[int]:
            rows = tokenizer(list(words), add_special_tokens=False)["input_ids"]
            return [row[0] for row in rows] if all(len(row) == 1 for row in rows) else []

        match, strengths, letters = (
            whole([STEP_MATCH.removeprefix(" 3")]),
            whole([f" s{strength}" for strength in range(STRENGTHS)]),
            whole(LETTERS),
        )
        if not (match and strengths and letters):
            match, strengths, letters = [], [], []
        return cls(begin, close, think_end, end, match, strengths, letters)


@dataclass(frozen=True)
class Rule:
    """`only`: nothing but `ids` may come next; else anything but `ids`."""

    only: bool
    ids: list[int]


@dataclass(frozen=True)
class Guide:
    """Plain numbers, so that it can travel to another process. candidates: token ids of each SID, in incoming order."""

    words: Words
    candidates: list[list[int]]
    reasoning: bool

    def start(self) -> "GuideState":
        return GuideState(self, thinking=self.reasoning)


@dataclass
class GuideState:
    """Where one completion stands. given: strengths of the match step; named: candidates in the answer; partial: the SID begun.

    letter: the candidate whose letter was said last, -1 before any; strength_of: candidate -> token of its strength in the match step.
    """

    guide: Guide
    thinking: bool
    matching: bool = False
    given: list[int] = field(default_factory=list)
    named: set[int] = field(default_factory=set)
    partial: list[int] = field(default_factory=list)
    last: int = -1
    letter: int = -1
    strength_of: dict[int, int] = field(default_factory=dict)

    def copy(self) -> "GuideState":
        return replace(self, given=[*self.given], named={*self.named}, partial=[*self.partial], strength_of={**self.strength_of})

    def advance(self, token: int) -> None:
        words, self.last = self.guide.words, token
        if token in words.letters:
            self.letter = words.letters.index(token)
        if self.thinking:
            self.thinking = token != words.think_end
            self.matching |= token in words.match
            if self.matching and token in words.strengths:
                self.given.append(token)
                self.strength_of.setdefault(self.letter, token)
        elif self.partial or token == words.begin:
            self.partial.append(token)
            if self.partial in self.guide.candidates:
                self.named.add(self.guide.candidates.index(self.partial))
                self.partial = []

    def draft(self) -> list[int]:
        """What a completion that agrees with itself would say next, as far as it can be told; a guess that binds nobody.

        A letter stands for its SID, the match step goes through the letters, and the answer follows the strengths given there.
        """
        words, candidates = self.guide.words, self.guide.candidates
        if self.thinking:
            if self.last == words.begin and 0 <= self.letter < len(candidates):
                return candidates[self.letter][1:]
            if self.matching and self.last in words.strengths and self.letter + 1 < len(candidates):
                return [words.letters[self.letter + 1]]
            return []
        left = [rank for rank in range(len(candidates)) if rank not in self.named]
        if self.partial:
            fit = [rank for rank in left if candidates[rank][: len(self.partial)] == self.partial]
            begun = self.letter if self.letter in fit else fit[0] if len(fit) == 1 else None
            said = candidates[begun][len(self.partial) :] if begun is not None else []
        elif self.last in words.letters:
            begun = self.letter if self.letter in left else None
            said = candidates[begun] if begun is not None else [words.begin]
        elif self.last in words.strengths:
            begun = next((rank for rank in left if self.strength_of.get(rank) == self.last), None)
            said = [words.letters[begun], *candidates[begun]] if begun is not None else []
        else:
            begun, said = -1, []
        if begun is None:
            return list(said)
        after = [rank for rank in left if rank != begun]
        if not after or not words.letters or not self.guide.reasoning:
            return [*said, *([words.begin] if after and not self.guide.reasoning else [])][:DRAFT]
        for rank in sorted(after, key=lambda rank: -words.strengths.index(self.strength_of.get(rank, words.strengths[0]))):
            if rank not in self.strength_of or len(said) >= DRAFT:
                break
            said = [*said, self.strength_of[rank], words.letters[rank], *candidates[rank]]
        return list(said[:DRAFT])

    def rule(self) -> Rule:
        """What may come next."""
        words, candidates = self.guide.words, self.guide.candidates
        if self.thinking:
            return Rule(False, [words.end, *self.given])
        left = [rank for rank in range(len(candidates)) if rank not in self.named]
        if self.partial:
            place = len(self.partial)
            return Rule(True, sorted({candidates[rank][place] for rank in left if candidates[rank][:place] == self.partial}))
        if not left:
            return Rule(True, [words.end])
        if not self.guide.reasoning or self.last in words.letters:
            return Rule(True, [words.begin])
        if not words.letters:
            return Rule(False, [words.end])
        if self.last in words.strengths:
            return Rule(True, [words.letters[rank] for rank in left])
        return Rule(True, words.strengths)

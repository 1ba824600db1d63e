"""A layout in the ids of one tokenizer: prompts, how an answer is read, and the constraint for decoding."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from stages.shared.slates.answers import AnswerReader
from stages.shared.slates.constraint import LayoutTokenIds, PermutationConstraint
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.layouts.marks import END, LETTERS, THINK_END
from stages.shared.slates.sids import SID_BEGIN, SID_END
from stages.shared.slates.slate import RELEVANCE_LEVELS, Slate

THINK_SLACK = 1.25  # of the tokens that a trace of this slate takes: a think block longer than that is running in circles


@dataclass(frozen=True)
class EncodedLayout:
    layout: Layout
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def reader(self) -> AnswerReader:
        begin, close, think_end, end = self._marks
        return AnswerReader(begin, close, think_end, end, frozenset(ids[0] for ids in self._encode(LETTERS) if len(ids) == 1))

    @cached_property
    def token_ids(self) -> LayoutTokenIds:
        """Relevances and letters are empty where the tokenizer splits those words, as pretrained ones may."""
        _, _, think_end, end = self._marks
        relevances = self._encode([f" s{relevance}" for relevance in range(RELEVANCE_LEVELS)])
        letters = self._encode(LETTERS)
        whole = all(len(ids) == 1 for ids in [*relevances, *letters])
        return LayoutTokenIds(think_end, end, [ids[0] for ids in relevances] if whole else [], [ids[0] for ids in letters] if whole else [])

    def prompts(self, slates: Sequence[Slate]) -> list[list[int]]:
        return self._encode([self.layout.prompt(slate) for slate in slates])

    def names(self, slates: Sequence[Slate]) -> list[list[list[int]]]:
        """Of each slate, the token ids by which its answer names each candidate."""
        return self._nested([self.layout.names(slate) for slate in slates])

    def constraints(self, slates: Sequence[Slate], enforced: bool) -> list[PermutationConstraint]:
        """One a slate. Not `enforced`: only what is likely to come next, for drafts; nothing is forbidden."""
        if not self.layout.reasoning:
            return [PermutationConstraint(self.token_ids, names, False, [], [], 0, enforced) for names in self.names(slates)]
        openings = self._encode([self.layout.opening(slate) for slate in slates])
        quotes = self._nested([[self.layout.quote(slate, rank) for rank in range(len(slate.candidates))] for slate in slates])
        rows = zip(self.names(slates), openings, quotes, strict=True)
        return [
            PermutationConstraint(self.token_ids, names, True, opening, quote, think_budget(opening, quote), enforced)
            for names, opening, quote in rows
        ]

    @cached_property
    def _marks(self) -> tuple[int, int, int, int]:
        vocabulary = self.tokenizer.get_vocab()
        begin, close, think_end, end = (vocabulary[token] for token in (SID_BEGIN, SID_END, THINK_END, END))
        return begin, close, think_end, end

    def _nested(self, texts: list[list[str]]) -> list[list[list[int]]]:
        flat = iter(self._encode([text for row in texts for text in row]))
        return [[next(flat) for _ in row] for row in texts]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        return ids


def think_budget(opening: Sequence[int], quotes: Sequence[Sequence[int]]) -> int:
    """Tokens of a think block at most. A relevance may take several tokens in a pretrained vocabulary: three are counted for each."""
    return round(THINK_SLACK * (len(opening) + sum(len(quote) + 3 for quote in quotes)))

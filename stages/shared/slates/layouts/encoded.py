"""A layout in the ids of one tokenizer: prompts, how an answer is read, and the constraint for decoding."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from stages.shared.core.errors import StageError
from stages.shared.slates.answers import AnswerReader, Reader
from stages.shared.slates.constraint import LayoutTokenIds, PermutationConstraint
from stages.shared.slates.json_answers import JsonAnswerReader
from stages.shared.slates.json_constraint import JsonConstraint
from stages.shared.slates.json_grammar import JsonGrammar, grammar_of
from stages.shared.slates.layouts.budget import fitted
from stages.shared.slates.layouts.dialogue import rendered_prompt, think_marks
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.layouts.marks import END, LETTERS, THINK_END
from stages.shared.slates.sids import SID_BEGIN, SID_END
from stages.shared.slates.slate import RELEVANCE_LEVELS, Slate

THINK_SLACK = 1.25  # of the tokens that a trace of this slate takes: a think block longer than that is running in circles


@dataclass(frozen=True)
class EncodedLayout:
    """cuts: what prompts lost to prompt.max_tokens so far (budget.py)."""

    layout: Layout
    tokenizer: PreTrainedTokenizerBase
    cuts: Counter[str] = field(default_factory=Counter, compare=False)

    @cached_property
    def reader(self) -> Reader:
        if self.layout.dialogue:
            return JsonAnswerReader(self.tokenizer, *self._turn_marks)
        begin, close, think_end, end = self._marks
        return AnswerReader(begin, close, think_end, end, frozenset(ids[0] for ids in self._encode(LETTERS) if len(ids) == 1))

    @cached_property
    def token_ids(self) -> LayoutTokenIds:
        """Relevances and letters are empty where the tokenizer splits those words, as pretrained ones may, and in dialogues."""
        if self.layout.dialogue:
            return LayoutTokenIds(*self._turn_marks, [], [])
        _, _, think_end, end = self._marks
        relevances = self._encode([f" s{relevance}" for relevance in range(RELEVANCE_LEVELS)])
        letters = self._encode(LETTERS)
        whole = all(len(ids) == 1 for ids in [*relevances, *letters])
        return LayoutTokenIds(think_end, end, [ids[0] for ids in relevances] if whole else [], [ids[0] for ids in letters] if whole else [])

    def prompts(self, slates: Sequence[Slate]) -> list[list[int]]:
        return self._encode([self.rendered(self.layout.prompt(slate)) for slate in slates])

    def rendered(self, prompt: str) -> str:
        """A prompt of the layout as the model reads it, cut to its budget."""
        return rendered_prompt(self.fitted(prompt), self.tokenizer) if self.layout.dialogue else prompt

    def fitted(self, prompt: str) -> str:
        """A dialogue cut to prompt.max_tokens."""

        def measure(text: str) -> int:
            return len(self._encode([rendered_prompt(text, self.tokenizer)])[0])

        return fitted(prompt, measure, self.layout.options.max_tokens, self.cuts)

    def names(self, slates: Sequence[Slate]) -> list[list[list[int]]]:
        """Of each slate, the token ids by which its answer names each candidate."""
        return self._nested([self.layout.names(slate) for slate in slates])

    def constraints(self, slates: Sequence[Slate], enforced: bool, max_tokens: int | None = None) -> Sequence[PermutationConstraint]:
        """One a slate. Not `enforced`: only what is likely to come next, for drafts; nothing is forbidden.

        max_tokens: of a completion. Enforced, thoughts end early enough for the names to end within it; StageError where not even the
        names fit. In dialogues it is not looked at: how many tokens the object takes is the model's choice.
        """
        if self.layout.dialogue:
            return [self._json_constraint(slate, names, enforced) for slate, names in zip(slates, self.names(slates), strict=True)]
        all_names = self.names(slates)
        rooms = [_room(names, self.layout.reasoning, max_tokens if enforced else None) for names in all_names]
        if not self.layout.reasoning:
            return [PermutationConstraint(self.token_ids, names, False, [], [], 0, enforced) for names in all_names]
        openings = self._encode([self.layout.opening(slate) for slate in slates])
        quotes = self._nested([[self.layout.quote(slate, rank) for rank in range(len(slate.candidates))] for slate in slates])
        rows = zip(all_names, openings, quotes, rooms, strict=True)
        return [
            PermutationConstraint(self.token_ids, names, True, opening, quote, min(think_budget(opening, quote), room), enforced)
            for names, opening, quote, room in rows
        ]

    def _json_constraint(self, slate: Slate, names: list[list[int]], enforced: bool) -> JsonConstraint:
        options, reasoning = self.layout.options, self.layout.reasoning
        budget = options.think_tokens
        if reasoning and not budget:
            # The words of a trace vary little with its relevances, so any will do to know its length.
            [trace] = self._encode([self.layout.trace(slate, [0] * len(names))])
            budget = round(THINK_SLACK * len(trace))
        spelled = tuple(self._grammar.spelled(name) for name in self.layout.names(slate))
        return JsonConstraint(
            self.token_ids,
            names,
            reasoning,
            [],
            [],
            budget,
            enforced,
            grammar=self._grammar,
            spelled=spelled,
            explanation=options.explanation_tokens,
            holds_budget=options.think_tokens > 0,
        )

    @cached_property
    def _grammar(self) -> JsonGrammar:
        return grammar_of(self.tokenizer)

    @cached_property
    def _turn_marks(self) -> tuple[int, int]:
        """The ends of this model's thoughts and of its turn."""
        mark = think_marks(self.tokenizer)[1]
        [closed] = self._encode([mark])
        if len(closed) != 1:
            raise StageError(
                f"{self.tokenizer.name_or_path}: {mark} is no token of it, by which prompt.layout: chat tells thoughts from the answer; "
                "midtrain adds it: gr2 run midtrain"
            )
        return closed[0], int(self.tokenizer.eos_token_id)

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


def _room(names: Sequence[Sequence[int]], reasoning: bool, max_tokens: int | None) -> int:
    """Tokens of thought that leave room for the end of the thoughts, all names and the end of the answer; None: no bound."""
    if max_tokens is None:
        return sys.maxsize
    room = max_tokens - sum(map(len, names)) - 1 - reasoning
    if room < 0:
        raise StageError(
            f"max_tokens: {max_tokens} tokens cannot hold an answer that names {len(names)} candidates ({max_tokens - room}); raise it, or "
            "set constrained: false"
        )
    return room

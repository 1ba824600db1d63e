"""The layout `chat`, for pretrained instruction-tuned models: a dialogue (dialogue.py), thoughts in four steps, one JSON object.

docs/prompts.md shows a whole example; tests/stages/shared/slates/golden/chat has every variant.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.shared.core.errors import StageError
from stages.shared.slates.candidate_features import FEATURES, MORE_FEATURES
from stages.shared.slates.layouts import chat_trace
from stages.shared.slates.layouts.chat_claims import claims_of, other_numbers, unfounded_in
from stages.shared.slates.layouts.layout import Claims
from stages.shared.slates.layouts.marks import ASSISTANT, END, SYSTEM, THINK, THINK_END, USER, letters
from stages.shared.slates.layouts.outside_text import TITLE_CHARACTERS, quoted, strings_in, without_strings
from stages.shared.slates.layouts.parts import LayoutParts
from stages.shared.slates.slate import Slate, order_of, top_categories

CATEGORY_CHARACTERS = 60

ROLE = """You are an analyst of a recommendation log. You are given the items that a user took, oldest first, and candidate items, each \
with a letter. Put the candidates in order by how likely the user takes them next."""
EVIDENCE = "Evidence on a candidate is given in levels, 0 is the lowest: {facts}."
STEPS = f"""Think in four steps. 1. Pattern: what the history has in common. 2. Category: which candidates continue it or complement it. \
3. Match: every candidate in the given order, what speaks for it, and its relevance, of {", ".join(chat_trace.SCALE)}. \
4. Order: each relevance from {chat_trace.SCALE[-1]} down to {chat_trace.SCALE[0]} with the letters of its candidates, or none. \
Cite only what is given; name candidates as in: candidate A."""
ANSWER = """{then} with one JSON object, {{"explanation": "...", "recommendations": [{example}, ...]}}: the explanation in one sentence, \
and {names} of all candidates, each once, best first."""
SORTING = """Evidence on candidates is given. Judge by it how relevant each is, and put the candidates in order of relevance, the most \
relevant first; equals keep their order."""


@dataclass(frozen=True)
class ChatLayout(LayoutParts):
    @property
    def dialogue(self) -> bool:
        return True

    @property
    def levels(self) -> int:
        return len(chat_trace.SCALE)

    def words(self) -> list[str]:
        return []

    def prompt(self, slate: Slate) -> str:
        history = ["History:", *(self._item(item) for item in self.shown_history(slate))]
        common = self._categories(slate)
        history += [f"Commonest categories: {', '.join(common)}"] if common else []
        candidates = ["Candidates:", *self._candidates(slate, with_items=True)]
        blocks = [candidates, history] if self.options.candidates_first else [history, candidates]
        # Closing the block in the prompt is what makes the model answer at once; it is never asked to "not think".
        think = THINK if self.reasoning else THINK + THINK_END
        return SYSTEM + self._instruction() + USER + "\n\n".join("\n".join(block) for block in blocks) + ASSISTANT + think

    def opening(self, slate: Slate) -> str:
        return chat_trace.opening(slate, self._shown(slate))

    def quote(self, slate: Slate, rank: int) -> str:
        sid = "" if self.answers_by_letter else self.catalog.sids[slate.candidates[rank]]
        return chat_trace.quote(slate, rank, sid, self._shown(slate))

    def relevance(self, rank: int, level: int) -> str:
        return chat_trace.relevance(rank, level)

    def conclusion(self, relevances: Sequence[int], order: Sequence[int] = ()) -> str:
        return chat_trace.conclusion(relevances, order or order_of(relevances))

    def trace(self, slate: Slate, relevances: Sequence[int], order: Sequence[int] = ()) -> str:
        return self.opening(slate) + self._match(slate, relevances) + self.conclusion(relevances, order)

    def explained_trace(self, slate: Slate, relevances: Sequence[int], order: Sequence[int], weights: Mapping[int, Sequence[float]]) -> str:
        """`trace`, with what speaks for and against some candidates after their evidence. weights: by rank, one a feature."""
        shown = self._shown(slate)
        if not shown.levels:
            return self.trace(slate, relevances, order)
        text = self.opening(slate)
        for rank, level in enumerate(relevances):
            words = chat_trace.facts(self.features, slate.bins[rank]).split(", ")
            weighed = chat_trace.weighing(words, weights[rank]) if rank in weights else ""
            sid = "" if self.answers_by_letter else self.catalog.sids[slate.candidates[rank]]
            text += chat_trace.quote(slate, rank, sid, shown, weighed) + self.relevance(rank, level)
        return text + self.conclusion(relevances, order)

    def short_form(self, slate: Slate, relevances: Sequence[int]) -> tuple[str, str]:
        listed = "\n".join(["Candidates:", *self._candidates(slate, with_items=not (self.answers_by_letter and self.options.evidence))])
        trace = chat_trace.MATCH + self._match(slate, relevances) + self.conclusion(relevances)
        return f"{SYSTEM}{self._instruction()}{USER}{listed}{ASSISTANT}{THINK}", trace

    def judged(self, slate: Slate, relevances: Sequence[int]) -> list[tuple[str, float]]:
        # Where letters do as names, the list of candidates would be most of the tokens, and nothing of it is needed.
        shown = [f"Candidates:{','.join(letters(len(slate.candidates)))}"]
        if not self.answers_by_letter:
            shown = ["Candidates:", *self._candidates(slate, with_items=True)]
        listed = "\n".join(shown)
        head = f"{SYSTEM}{SORTING}\n{self._answer_rule('Answer')}{USER}{listed}{ASSISTANT}{THINK}{chat_trace.MATCH}"
        judged = float(self.options.evidence)  # without evidence nothing that is shown commands a relevance
        lines = [[(self.quote(slate, rank), 0.0), (self.relevance(rank, level), judged)] for rank, level in enumerate(relevances)]
        return [(head, 0.0), *(part for line in lines for part in line)]

    def names(self, slate: Slate) -> list[str]:
        if self.answers_by_letter:
            return [letter.strip() for letter in letters(len(slate.candidates))]
        return [self.catalog.sids[item] for item in slate.candidates]

    def answer(self, slate: Slate, order: Sequence[int], cited: Sequence[str] = ()) -> str:
        names = self.names(slate)
        explanation = chat_trace.explanation(slate, order[0], self._shown(slate), cited)
        return json.dumps({"explanation": explanation, "recommendations": [names[rank] for rank in order]}, ensure_ascii=False) + END

    def claims(self, text: str) -> Claims:
        return claims_of(text)

    def unfounded(self, trace: str, slate: Slate) -> list[str]:
        history = self.shown_history(slate)
        items = [*history, *slate.candidates]
        strings = {*self._categories(slate), *strings_in("\n".join(self.options.domain))}
        if self.options.titles:
            strings |= {string for item in items for string in [self._title(item), *self._names(item)]}
        features = [slate.words(rank) if self.options.evidence else [] for rank in range(len(slate.candidates))]
        problems = unfounded_in(trace, features, set(self.shown_sids(slate)), strings, self._shown(slate).of_history)
        numbers = other_numbers(trace)
        return [*problems, *(self.uncounted(numbers, slate, without_strings(self.prompt(slate))) if numbers else [])]

    def _instruction(self) -> str:
        lines = [ROLE]
        if self.options.evidence:
            meanings = {**FEATURES, **MORE_FEATURES}
            facts = [chat_trace.MEANINGS.get(feature, f"{feature} ({meanings[feature]})") for feature in self.features]
            lines.append(EVIDENCE.format(facts=", ".join(facts)))
        if self.options.domain:
            lines += ["What is known of the domain:", *(f"- {line}" for line in self.options.domain)]
        lines += [STEPS, self._answer_rule("Then answer")] if self.reasoning else [self._answer_rule("Answer")]
        return "\n".join(lines)

    def _answer_rule(self, then: str) -> str:
        by_letter = self.answers_by_letter
        return ANSWER.format(then=then, names="the letters" if by_letter else "the IDs", example='"A"' if by_letter else '"ID"')

    def _candidates(self, slate: Slate, with_items: bool) -> list[str]:
        # A slate of other features would be written with the wrong words.
        if slate.features != self.features:
            raise StageError(
                f"slate {slate.slate} has the features {', '.join(slate.features)}, and prompt.more_features asks for "
                f"{', '.join(self.features)}; rerun: gr2 run retrieve"
            )
        lines = []
        for letter, item, levels in zip(letters(len(slate.candidates)), slate.candidates, slate.bins, strict=True):
            parts = [self._item(item)] if with_items else []
            parts += [chat_trace.facts(self.features, levels)] if self.options.evidence else []
            lines.append(f"{letter.strip()}) " + " | ".join(parts))
        return lines

    def _item(self, item: int) -> str:
        parts = [self.catalog.sids[item]]
        if self.options.titles:
            parts += [f"title {self._title(item)}" if self.catalog.titles[item].strip() else "no title"]
            parts += [f"category {', '.join(self._names(item))}"] if self.catalog.categories[item] else []
        return " | ".join(parts)

    def _title(self, item: int) -> str:
        return quoted(self.catalog.titles[item], TITLE_CHARACTERS)

    def _names(self, item: int) -> list[str]:
        return [quoted(name, CATEGORY_CHARACTERS) for name in self.catalog.categories[item]]

    def _shown(self, slate: Slate) -> chat_trace.Shown:
        history, shows = self.shown_history(slate), self.options.titles
        return chat_trace.Shown(
            common=self._categories(slate),
            of_history=[self._names(item) for item in history] if shows else [],
            of_candidates=[self._names(item) if shows else [] for item in slate.candidates],
            latest=self.catalog.sids[history[-1]],
            levels=slate.bins if self.options.evidence else [],
            features=self.features,
            cited=self.quoted,
        )

    def _categories(self, slate: Slate) -> list[str]:
        shown = self.shown_history(slate)
        return [quoted(word, CATEGORY_CHARACTERS) for word in top_categories(shown, self.catalog, self.options.top_categories)]

    def _match(self, slate: Slate, relevances: Sequence[int]) -> str:
        return "".join(f"{self.quote(slate, rank)}{self.relevance(rank, level)}" for rank, level in enumerate(relevances))

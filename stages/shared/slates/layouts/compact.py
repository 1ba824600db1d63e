"""The layout `compact`, for small models: every word is one token.

    <|user|>history:SID SID taste: Drama Comedy candidates: A co7 tr3 ca5 po6 re2 sc9ASID B ...<|assistant|><think>
     1 pattern: Drama Comedy 2 match: A co7 tr3 ca5 po6 re2 sc9 A s12 B ... B s3</think> A B ...<|end|>        (in one line)

The trace restates the features of a candidate right before it judges them. Quoting is copying, which a small decoder learns first, and
turns the look-up of six features by letter into a look at the last eight tokens (docs/training.md has the measurement). The answer
names candidates by letter; by SID with `prompt.answer: sids`. Without reasoning the prompt closes the think block itself, as Qwen3 does.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from stages.shared.core.errors import StageError
from stages.shared.slates.layouts.layout import Claims
from stages.shared.slates.layouts.marks import ASSISTANT, END, LETTERS, SPECIAL_TOKENS, THINK, THINK_END, USER, letters
from stages.shared.slates.layouts.parts import LayoutParts
from stages.shared.slates.sids import SID_BEGIN, SID_END
from stages.shared.slates.slate import RELEVANCE_LEVELS, Slate, top_categories

TASK_WORDS = ["title:", "item:", "text:"]  # of the tasks of mid-training (stages/midtrain/documents.py)
STEP_PATTERN, STEP_MATCH = " 1 pattern:", " 2 match:"

_BEGIN, _CLOSE = re.escape(SID_BEGIN), re.escape(SID_END)
_WHOLE_SID = re.compile(rf"{_BEGIN}.*?{_CLOSE}", re.DOTALL)
_SID = re.compile(rf"{_BEGIN}.*?(?:{_CLOSE}|(?={_BEGIN})|\Z)", re.DOTALL)  # one begun and never closed is cited, and fits nothing
_STEP = re.compile(r" \d+ (?=pattern:|match:)")
_RELEVANCE = re.compile(r" ([A-Z]) s(\d+)(?!\d)")


@dataclass(frozen=True)
class _Patterns:
    letter: re.Pattern[str]  # as a candidate's name, not a word of a category
    quote: re.Pattern[str]
    feature: re.Pattern[str]


@cache
def _patterns(features: tuple[str, ...]) -> _Patterns:
    """How a trace names candidates and restates these features."""
    feature = rf"(?:{'|'.join(features)})\d+"
    return _Patterns(
        letter=re.compile(rf"(?<= )[A-Z](?= (?:s\d|{feature})|{_BEGIN})"),
        quote=re.compile(rf" ([A-Z])((?: {feature})+)"),
        feature=re.compile(rf"\b{feature}"),
    )


@dataclass(frozen=True)
class CompactLayout(LayoutParts):
    @property
    def dialogue(self) -> bool:
        return False

    @property
    def levels(self) -> int:
        return RELEVANCE_LEVELS

    def words(self) -> list[str]:
        features = [f" {feature}{level}" for feature in self.features for level in range(10)]
        relevances = [f" s{relevance}" for relevance in range(RELEVANCE_LEVELS)]
        return [*features, *relevances, *LETTERS, "history:", " taste:", " candidates:", " 1", " pattern:", " 2", " match:", *TASK_WORDS]

    def prompt(self, slate: Slate) -> str:
        history = "".join(self._item(item) for item in self.shown_history(slate))
        candidates = "".join(f"{self._shown(slate, rank)}{self._item(item)}" for rank, item in enumerate(slate.candidates))
        # Closing the block in the prompt is what makes the model answer at once; it is never asked to "not think".
        think = THINK if self.reasoning else THINK + THINK_END
        return f"{USER}history:{history} taste:{self._categories(slate)} candidates:{candidates}{ASSISTANT}{think}"

    def opening(self, slate: Slate) -> str:
        return f"{STEP_PATTERN}{self._categories(slate)}{STEP_MATCH}"

    def quote(self, slate: Slate, rank: int) -> str:
        return self._shown(slate, rank) + letters(len(slate.candidates))[rank]

    def relevance(self, rank: int, level: int) -> str:
        return f" s{level}"

    def conclusion(self, relevances: Sequence[int], order: Sequence[int] = ()) -> str:
        return ""  # a small decoder is trained to sort, on enough tokens

    def trace(self, slate: Slate, relevances: Sequence[int], order: Sequence[int] = ()) -> str:
        return self.opening(slate) + self._match(slate, relevances)

    def short_form(self, slate: Slate, relevances: Sequence[int]) -> tuple[str, str]:
        listed = (self._shown(slate, rank) for rank in range(len(slate.candidates)))
        return f" candidates:{''.join(listed)}", STEP_MATCH + self._match(slate, relevances)

    def judged(self, slate: Slate, relevances: Sequence[int]) -> list[tuple[str, float]]:
        names = letters(len(slate.candidates))
        sids = (f"{name}{self.catalog.sids[item]}" for name, item in zip(names, slate.candidates, strict=True))
        listed = "" if self.answers_by_letter else f" candidates:{''.join(sids)}"
        return [(listed + STEP_MATCH + "".join(f"{name} s{relevance}" for name, relevance in zip(names, relevances, strict=True)), 0.0)]

    def names(self, slate: Slate) -> list[str]:
        return letters(len(slate.candidates)) if self.answers_by_letter else [self.catalog.sids[item] for item in slate.candidates]

    def answer(self, slate: Slate, order: Sequence[int], cited: Sequence[str] = ()) -> str:
        names = self.names(slate)
        return "".join(names[rank] for rank in order) + END

    def claims(self, text: str) -> Claims:
        reasoning = text.partition(END)[0].partition(THINK_END)[0]
        # Looked for from the match on: the pattern before it holds categories, which are text from outside.
        match, patterns = reasoning.partition(STEP_MATCH)[2], _patterns(self.features)
        return Claims(
            sids=_SID.findall(reasoning),
            letters=patterns.letter.findall(match),
            relevances={letter: int(relevance) for letter, relevance in _RELEVANCE.findall(match)},
            quotes={letter: words.split() for letter, words in patterns.quote.findall(match)},
        )

    def unfounded(self, trace: str, slate: Slate) -> list[str]:
        claims, names = self.claims(trace), [letter.strip() for letter in letters(len(slate.candidates))]
        features = {name: slate.words(rank) for rank, name in enumerate(names)}
        shown_sids, shown_words = set(self.shown_sids(slate)), {word for words in features.values() for word in words}
        # All quotes of a letter: of two, the one that is false counts.
        quotes = _patterns(self.features).quote.findall(trace.partition(STEP_MATCH)[2])
        misquoted = [f"{name} {' '.join(words.split())}" for name, words in quotes if words.split() != features.get(name)]
        invented = [word for word in _patterns(self.features).feature.findall(trace) if word not in shown_words]
        spoken = _STEP.sub("", _RELEVANCE.sub("", _WHOLE_SID.sub("", trace)))
        numbers = [int(number) for number in re.findall(r"(?<!\S)\d+(?!\w)", spoken)]
        # Whole SIDs are taken out first; what is left of SID_BEGIN and SID_END after that is half a SID.
        rest = _WHOLE_SID.sub("", trace)
        return [
            *(sid for sid in claims.sids if sid not in shown_sids),
            *(letter for letter in claims.letters if letter not in features),
            *invented,
            *misquoted,
            *self._categories_not_shown(trace.partition(STEP_MATCH)[0], slate),
            *(self.uncounted(numbers, slate, self.prompt(slate)) if numbers else []),
            *(token for token in [*SPECIAL_TOKENS, SID_BEGIN, SID_END] if token in rest),
        ]

    def _match(self, slate: Slate, relevances: Sequence[int]) -> str:
        return "".join(f"{self.quote(slate, rank)} s{relevance}" for rank, relevance in enumerate(relevances))

    def _shown(self, slate: Slate, rank: int) -> str:
        """A candidate's letter and its features."""
        if slate.features != self.features:
            raise StageError(
                f"slate {slate.slate} has the features {', '.join(slate.features)}, and prompt.more_features asks for "
                f"{', '.join(self.features)}; rerun: gr2 run retrieve"
            )
        return f"{letters(len(slate.candidates))[rank]} {' '.join(slate.words(rank))}"

    def _categories(self, slate: Slate) -> str:
        return "".join(f" {word}" for word in top_categories(slate.history, self.catalog, self.options.top_categories))

    @cached_property
    def _known_categories(self) -> frozenset[str]:
        return frozenset(category for categories in self.catalog.categories for category in categories)

    def _categories_not_shown(self, pattern: str, slate: Slate) -> list[str]:
        """Categories of the catalogue that a pattern names and this prompt does not."""
        shown = set(top_categories(slate.history, self.catalog, self.options.top_categories))
        if self.options.titles:
            shown |= {category for item in [*self.shown_history(slate), *slate.candidates] for category in self.catalog.categories[item]}
        # Shown ones are taken out first, the longest before its parts: "Fiction" is no category of its own in "Science Fiction".
        for category in sorted(shown, key=len, reverse=True):
            pattern = re.sub(rf"(?<!\S){re.escape(category)}(?!\w)", "|", pattern)
        words = [word.strip(".,;:") for word in pattern.split()]
        spans = (" ".join(words[start : start + length]) for length in range(1, 5) for start in range(len(words) - length + 1))
        return [span for span in spans if span in self._known_categories]

    def _item(self, item: int) -> str:
        sid = self.catalog.sids[item]
        if not self.options.titles:
            return sid
        return f"{sid} {self.catalog.titles[item]} ({', '.join(self.catalog.categories[item])})\n"

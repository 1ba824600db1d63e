"""The interface of a layout: prompt, trace and answer as text, and what a completion claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import Slate


@dataclass(frozen=True)
class Claims:
    """What the think block of a completion says. Ranks count candidates as shown.

    sids: every SID named; letters: every letter that names a candidate ("A"); relevances: by letter, the last given; quotes: the features
    restated of each letter, as words; partial: whether a quote may leave some out.
    """

    sids: list[str]
    letters: list[str]
    relevances: dict[str, int]
    quotes: dict[str, list[str]]
    partial: bool = False

    def misquotes(self, name: str, words: Sequence[str]) -> bool:
        """Whether the quote of `name` differs from the features shown, `words`."""
        quote = self.quotes[name]
        return not set(quote) <= set(words) if self.partial else quote != list(words)


class Layout(Protocol):
    """Knows one catalogue and the section `prompt`. Everything here is text; EncodedLayout says what it is in token ids."""

    @property
    def options(self) -> PromptParams: ...

    @property
    def reasoning(self) -> bool:
        """Whether a trace comes before the answer."""
        ...

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the features that a slate must have, in the order in which they are shown."""
        ...

    @property
    def quoted(self) -> tuple[str, ...]:
        """Of `features`, those that a trace quotes of a candidate before its relevance, which is to follow from them."""
        ...

    @property
    def answers_by_letter(self) -> bool:
        """Whether an answer names candidates by their letters, which any form of a slate shows; otherwise by their SIDs."""
        ...

    @property
    def dialogue(self) -> bool:
        """Whether a prompt is a dialogue for a chat template (dialogue.py) and an answer one JSON object."""
        ...

    @property
    def levels(self) -> int:
        """How many relevances there are, from 0."""
        ...

    def words(self) -> list[str]:
        """Every word of the layout, for a vocabulary learnt from scratch: each must be one token."""
        ...

    def prompt(self, slate: Slate) -> str:
        """Everything before the model's first token."""
        ...

    def opening(self, slate: Slate) -> str:
        """How every trace of this slate begins: what the prompt alone determines."""
        ...

    def quote(self, slate: Slate, rank: int) -> str:
        """What a trace says of a candidate before its relevance: its letter, its features restated, and the letter again."""
        ...

    def relevance(self, rank: int, level: int) -> str:
        """What follows a quote: the judgement. A trace is its opening, a quote and a relevance for each candidate, and its conclusion."""
        ...

    def conclusion(self, relevances: Sequence[int], order: Sequence[int] = ()) -> str:
        """How a trace ends: what leads from the relevances to the answer, or nothing. order: the answer's; () = `order_of(relevances)`."""
        ...

    def trace(self, slate: Slate, relevances: Sequence[int], order: Sequence[int] = ()) -> str:
        """The think block: relevances, one a candidate in the order shown, each after what it follows from, and the conclusion."""
        ...

    def short_form(self, slate: Slate, relevances: Sequence[int]) -> tuple[str, str]:
        """The slate and its trace for practice: candidates with their features alone, and the trace from where it speaks of them."""
        ...

    def judged(self, slate: Slate, relevances: Sequence[int]) -> list[tuple[str, float]]:
        """For practice in sorting: what names the candidates, and the think block from their relevances to before its conclusion. As texts
        with the weight of their tokens: above 0 where a relevance stands behind what it follows from, which is practice in judging, too."""
        ...

    def names(self, slate: Slate) -> list[str]:
        """What the answer names each candidate by."""
        ...

    def answer(self, slate: Slate, order: Sequence[int], cited: Sequence[str] = ()) -> str:
        """order: ranks as shown, best first. cited: features that an explanation names, where a layout has one. Ends with END."""
        ...

    def shown_sids(self, slate: Slate) -> list[str]:
        """The SIDs in the prompt: of the history shown, and of the candidates."""
        ...

    def claims(self, text: str) -> Claims:
        """text: a completion from its first token; without a closed think block all of it is reasoning."""
        ...

    def unfounded(self, trace: str, slate: Slate) -> list[str]:
        """What `trace` may not say: SIDs, letters and features that the prompt does not show, or shows of another candidate; marks of the
        layout inside the think block."""
        ...

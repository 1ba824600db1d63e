"""Mid-training documents: what aligns semantic IDs with items and users (the tasks of OneRec-Think, arXiv 2510.11639, in small).

- sequence: a stretch of a user's base history, every next SID counts;
- caption: SID -> title and categories, and back;
- preference: titles that a user took -> the categories taken most;
- persona: a stretch of a user's base history, each SID followed by its item's words, then the categories taken most.

A wording says how: in the marks of the layout `compact` (here), or as dialogues for a chat template (dialogue_wording.py). Sequences are
plain text in both, as the search for a next item asks for them (stages/shared/lm/sid_search.py). The practice of the layout is in
stages/shared/slates/practice.py, for sft does some of it too; ordinary text in ordinary_text.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stages.shared.lm.encoding import Segment
from stages.shared.slates.layouts.marks import ASSISTANT, END, USER
from stages.shared.slates.slate import Catalog, top_categories

Document = list[Segment]
PREFERENCE_TITLES, PREFERENCE_CATEGORIES = 5, 2
PERSONA_ITEMS = 5


class Wording(Protocol):
    """How the tasks are put; rng chooses among phrases, where there are several. `taken`: items in the order in which a user took them."""

    @property
    def catalog(self) -> Catalog: ...

    def sid_to_caption(self, item: int, rng: np.random.Generator) -> Document: ...

    def sid_to_title(self, item: int, rng: np.random.Generator) -> Document:
        """The same with weight on the title alone, to measure it."""
        ...

    def caption_to_sid(self, item: int, rng: np.random.Generator) -> Document: ...

    def preference(self, taken: Sequence[int], rng: np.random.Generator) -> Document: ...

    def persona(self, taken: Sequence[int], rng: np.random.Generator) -> Document: ...


@dataclass(frozen=True)
class CompactWording:
    """One phrase a task, a word a token."""

    catalog: Catalog

    def sid_to_caption(self, item: int, rng: np.random.Generator) -> Document:
        return [(f"{USER}item:{self.catalog.sids[item]}{ASSISTANT}", 0.0), (caption(item, self.catalog) + END, 1.0)]

    def sid_to_title(self, item: int, rng: np.random.Generator) -> Document:
        title = f" {self.catalog.titles[item]}"
        rest = caption(item, self.catalog).removeprefix(title) + END
        return [(f"{USER}item:{self.catalog.sids[item]}{ASSISTANT}", 0.0), (title, 1.0), (rest, 0.0)]

    def caption_to_sid(self, item: int, rng: np.random.Generator) -> Document:
        return [(f"{USER}title:{caption(item, self.catalog)}{ASSISTANT}", 0.0), (self.catalog.sids[item] + END, 1.0)]

    def preference(self, taken: Sequence[int], rng: np.random.Generator) -> Document:
        titles = "".join(f" {self.catalog.titles[item]}" for item in taken)
        return [(f"{USER}text:{titles}{ASSISTANT}", 0.0), (self._liked(taken), 1.0)]

    def persona(self, taken: Sequence[int], rng: np.random.Generator) -> Document:
        told = "".join(self.catalog.sids[item] + caption(item, self.catalog) for item in taken)
        return [(f"{USER}text:", 0.0), (told, 1.0), (ASSISTANT, 0.0), (self._liked(taken), 1.0)]

    def _liked(self, taken: Sequence[int]) -> str:
        return "".join(f" {word}" for word in top_categories(taken, self.catalog, PREFERENCE_CATEGORIES)) + END


def caption(item: int, catalog: Catalog) -> str:
    return f" {catalog.titles[item]} {' '.join(catalog.categories[item])}"


def sequence_documents(sequences: Sequence[Sequence[int]], catalog: Catalog, rng: np.random.Generator, window: int) -> Iterator[Document]:
    """Endless: a random window of a random user's base sequence."""
    long_enough = [sequence for sequence in sequences if len(sequence) >= 2]
    while True:
        sequence = long_enough[rng.integers(len(long_enough))]
        start = int(rng.integers(max(1, len(sequence) - window + 1)))
        sids = "".join(catalog.sids[item] for item in sequence[start : start + window])
        # No weight on the end: where a random window stops says nothing about the user.
        yield [(f"{USER}history:", 0.0), (sids, 1.0), (END, 0.0)]


def caption_documents(wording: Wording, items: int, rng: np.random.Generator) -> Iterator[Document]:
    """Endless: a random item, read or written."""
    while True:
        item = int(rng.integers(items))
        # Both ways in equal parts: reading a SID and writing one are learnt apart.
        yield wording.sid_to_caption(item, rng) if rng.random() < 0.5 else wording.caption_to_sid(item, rng)


def preference_documents(sequences: Sequence[Sequence[int]], wording: Wording, rng: np.random.Generator) -> Iterator[Document]:
    """Endless: some successive titles of a random user's base sequence, then their commonest categories."""
    while True:
        yield wording.preference(_stretch(sequences, PREFERENCE_TITLES, rng), rng)


def persona_documents(sequences: Sequence[Sequence[int]], wording: Wording, rng: np.random.Generator) -> Iterator[Document]:
    """Endless: a stretch of a random user's base sequence, SIDs and words interleaved.

    The words are those of the catalogue: ingest keeps no reviews or tags, so the user's own are not to be had.
    """
    while True:
        yield wording.persona(_stretch(sequences, PERSONA_ITEMS, rng), rng)


def _stretch(sequences: Sequence[Sequence[int]], length: int, rng: np.random.Generator) -> Sequence[int]:
    sequence = sequences[int(rng.integers(len(sequences)))]
    start = int(rng.integers(max(1, len(sequence) - length + 1)))
    return sequence[start : start + length]

"""Mid-training documents: what aligns semantic IDs with items and users (the tasks of OneRec-Think, arXiv 2510.11639, in small).

- sequence: a stretch of a user's base history, every next SID counts;
- caption: SID -> title and categories, and back;
- preference: titles that a user took -> the categories taken most.

The practice of the layout is in stages/shared/slates/practice.py, for sft does some of it too.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from stages.shared.lm.encoding import Segment
from stages.shared.slates.layouts.marks import ASSISTANT, END, USER
from stages.shared.slates.slate import Catalog, top_categories

Document = list[Segment]
PREFERENCE_TITLES, PREFERENCE_CATEGORIES = 5, 2


def sequence_documents(sequences: Sequence[Sequence[int]], catalog: Catalog, rng: np.random.Generator, window: int) -> Iterator[Document]:
    """Endless: a random window of a random user's base sequence."""
    long_enough = [sequence for sequence in sequences if len(sequence) >= 2]
    while True:
        sequence = long_enough[rng.integers(len(long_enough))]
        start = int(rng.integers(max(1, len(sequence) - window + 1)))
        sids = "".join(catalog.sids[item] for item in sequence[start : start + window])
        # No weight on the end: where a random window stops says nothing about the user.
        yield [(f"{USER}history:", 0.0), (sids, 1.0), (END, 0.0)]


def caption_documents(catalog: Catalog, rng: np.random.Generator) -> Iterator[Document]:
    """Endless: a random item, read or written."""
    while True:
        item = int(rng.integers(len(catalog.sids)))
        # Both ways in equal parts: reading a SID and writing one are learnt apart.
        yield sid_to_caption(item, catalog) if rng.random() < 0.5 else caption_to_sid(item, catalog)


def sid_to_caption(item: int, catalog: Catalog) -> Document:
    return [(f"{USER}item:{catalog.sids[item]}{ASSISTANT}", 0.0), (caption(item, catalog) + END, 1.0)]


def caption_to_sid(item: int, catalog: Catalog) -> Document:
    return [(f"{USER}title:{caption(item, catalog)}{ASSISTANT}", 0.0), (catalog.sids[item] + END, 1.0)]


def caption(item: int, catalog: Catalog) -> str:
    return f" {catalog.titles[item]} {' '.join(catalog.categories[item])}"


def preference_documents(sequences: Sequence[Sequence[int]], catalog: Catalog, rng: np.random.Generator) -> Iterator[Document]:
    """Endless: some successive titles of a random user's base sequence, then their commonest categories."""
    while True:
        sequence = sequences[int(rng.integers(len(sequences)))]
        start = int(rng.integers(max(1, len(sequence) - PREFERENCE_TITLES + 1)))
        taken = sequence[start : start + PREFERENCE_TITLES]
        titles = "".join(f" {catalog.titles[item]}" for item in taken)
        categories = "".join(f" {word}" for word in top_categories(taken, catalog, PREFERENCE_CATEGORIES))
        yield [(f"{USER}text:{titles}{ASSISTANT}", 0.0), (categories + END, 1.0)]

"""Mid-training documents: what aligns semantic IDs with items and with the layout of a slate (GR2.md tasks of OneRec-Think).

- sequence: a stretch of a user's base history, every next SID counts;
- caption: SID -> title and categories, and back;
- skill: a made-up slate with made-up evidence and strengths. Copying the candidates in order and sorting them by their strength
  words is a skill without any fact about users, so it can be practised without limit and without leaks. Made-up words carry no loss.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from stages.shared.encoding import Segment
from stages.shared.evidence import FACTS
from stages.shared.prompts import (
    ASSISTANT,
    END,
    STEP_BEST,
    STEP_LINK,
    STEP_MATCH,
    STEP_PATTERN,
    STRENGTHS,
    THINK_END,
    USER,
    Catalog,
    PromptParams,
    Slate,
    answer_text,
    letters,
    order_of,
    slate_prompt,
    taste_words,
)

Document = list[Segment]


def sequence_documents(sequences: Sequence[Sequence[int]], catalog: Catalog, rng: np.random.Generator, window: int) -> Iterator[Document]:
    """Endless: a random window of a random user's base sequence."""
    long_enough = [sequence for sequence in sequences if len(sequence) >= 2]
    while True:
        sequence = long_enough[rng.integers(len(long_enough))]
        start = int(rng.integers(max(1, len(sequence) - window + 1)))
        sids = "".join(catalog.sids[item] for item in sequence[start : start + window])
        yield [(f"{USER}history:", 0.0), (sids, 1.0), (END, 0.0)]


def caption_documents(catalog: Catalog, rng: np.random.Generator) -> Iterator[Document]:
    """Endless: a random item, read or written."""
    while True:
        item = int(rng.integers(len(catalog.sids)))
        caption = f" {catalog.titles[item]} {' '.join(catalog.categories[item])}"
        if rng.random() < 0.5:
            yield [(f"{USER}item:{catalog.sids[item]}{ASSISTANT}", 0.0), (caption + END, 1.0)]
        else:
            yield [(f"{USER}title:{caption}{ASSISTANT}", 0.0), (catalog.sids[item] + END, 1.0)]


def skill_documents(catalog: Catalog, options: PromptParams, rng: np.random.Generator, candidates: int) -> Iterator[Document]:
    """Endless: a slate of random items with random levels and strengths, in the full layout of prompt, trace and answer."""
    items = len(catalog.sids)
    while True:
        chosen = rng.choice(items, size=options.history + candidates, replace=False).tolist()
        slate = Slate(
            slate=0,
            user=0,
            split="made-up",
            timestamp=0,
            history=chosen[: options.history],
            candidates=chosen[options.history :],
            levels=rng.integers(0, 10, size=(candidates, len(FACTS))).tolist(),
            target_rank=0,
        )
        yield skill_document(slate, catalog, options, rng.integers(0, STRENGTHS, size=candidates).tolist())


def ordering_documents(catalog: Catalog, rng: np.random.Generator, candidates: int) -> Iterator[Document]:
    """Endless: 2 to `candidates` random items with random strengths, then the same by falling strength. The skill's short form."""
    while True:
        count = int(rng.integers(2, candidates + 1))
        chosen = rng.choice(len(catalog.sids), size=count, replace=False).tolist()
        strengths = rng.integers(0, STRENGTHS, size=count).tolist()
        names = letters(count)
        listed = "".join(f"{name}{catalog.sids[item]}" for name, item in zip(names, chosen, strict=True))
        judged = "".join(f"{name} s{strength}" for name, strength in zip(names, strengths, strict=True))
        ordered = "".join(f" s{strengths[rank]}{names[rank]}{catalog.sids[chosen[rank]]}" for rank in order_of(strengths))
        yield [(f" candidates:{listed}{STEP_MATCH}{judged}", 0.0), (f"{THINK_END}{ordered}{END}", 1.0)]


def skill_document(slate: Slate, catalog: Catalog, options: PromptParams, strengths: list[int]) -> Document:
    """The slate's prompt, a trace with the given strengths, and the order they command. Made-up judgements weigh nothing."""
    linked = max(range(len(slate.candidates)), key=lambda rank: slate.levels[rank][0])
    taste = "".join(f" {word}" for word in taste_words(slate.history, catalog, options.taste))
    names = letters(len(slate.candidates))
    link = f" co{slate.levels[linked][0]}{names[linked]}{catalog.sids[slate.candidates[linked]]}"
    document: Document = [
        (slate_prompt(slate, catalog, options), 0.0),
        (f"{STEP_PATTERN}{taste}{STEP_LINK}{link}{STEP_MATCH}", 1.0),
    ]
    for name, strength in zip(names, strengths, strict=True):
        document += [(name, 1.0), (f" s{strength}", 0.0)]
    order = order_of(strengths)
    first = f"{catalog.sids[slate.candidates[order[0]]]}"
    document += [(STEP_BEST + names[order[0]], 1.0), (" co0 tr0", 0.0), (first, 1.0)]
    document.append((THINK_END + answer_text(order, slate, catalog, strengths), 1.0))
    return document

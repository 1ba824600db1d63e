"""Mid-training documents: what aligns semantic IDs with items and with the layout of a slate (GR2.md tasks of OneRec-Think).

- sequence: a stretch of a user's base history, every next SID counts;
- caption: SID -> title and categories, and back;
- ordering: made-up strengths for random items, then the items by falling strength; the short form of the next;
- reading: made-up facts of each letter, then its strength: their mean level, put on the scale of strengths;
- skill: a made-up slate in the full layout, judged like that.

To read facts by letter, weigh them up, sort and copy is a skill without any fact about users, so it can be practised without limit
and without leaks; which facts matter how much is left to sft.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from stages.shared.lm.encoding import Segment
from stages.shared.slates.candidate_features import FACTS, fact_words
from stages.shared.slates.prompts import (
    ASSISTANT,
    END,
    STEP_MATCH,
    STRENGTHS,
    THINK_END,
    USER,
    Catalog,
    PromptParams,
    Slate,
    answer_text,
    distinct,
    letters,
    order_of,
    slate_prompt,
    trace_text,
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
        yield skill_document(slate, catalog, options)


def ordering_documents(catalog: Catalog, rng: np.random.Generator, candidates: int) -> Iterator[Document]:
    """Endless: 2 to `candidates` random items with random strengths, then the same by falling strength. The skill's short form."""
    while True:
        count = int(rng.integers(2, candidates + 1))
        chosen = rng.choice(len(catalog.sids), size=count, replace=False).tolist()
        strengths = rng.choice(STRENGTHS, size=count, replace=False).tolist()
        names = letters(count)
        listed = "".join(f"{name}{catalog.sids[item]}" for name, item in zip(names, chosen, strict=True))
        judged = "".join(f"{name} s{strength}" for name, strength in zip(names, strengths, strict=True))
        ordered = "".join(f" s{strengths[rank]}{names[rank]}{catalog.sids[chosen[rank]]}" for rank in order_of(strengths))
        yield [(f" candidates:{listed}{STEP_MATCH}{judged}", 0.0), (f"{THINK_END}{ordered}{END}", 1.0)]


def reading_documents(rng: np.random.Generator, candidates: int) -> Iterator[Document]:
    """Endless: the facts of 1 to `candidates` letters, then the strength of each letter. The other half of the skill's short form."""
    while True:
        count = int(rng.integers(1, candidates + 1))
        levels = rng.integers(0, 10, size=(count, len(FACTS))).tolist()
        names = letters(count)
        told = "".join(f" {' '.join(fact_words(own))}{name}" for name, own in zip(names, levels, strict=True))
        document: Document = [(f" candidates:{told}{STEP_MATCH}", 0.0)]
        for name, strength in zip(names, mean_strengths(levels), strict=True):
            document += [(name, 0.0), (f" s{strength}", 1.0)]
        yield [*document, (END, 0.0)]


def mean_strengths(slate: Sequence[Sequence[int]]) -> list[int]:
    """One for each candidate's levels [K][facts], no two alike."""
    return distinct([mean_strength(levels) for levels in slate], [sum(levels) for levels in slate])


def mean_strength(levels: Sequence[int], top: int = 9) -> int:
    """The strength of a candidate with these fact levels: their mean among means of uniform levels 0..top, as one of 32 equal shares."""
    spread = math.sqrt(((top + 1) ** 2 - 1) / 12 / len(levels))
    share = 0.5 * (1 + math.erf((sum(levels) / len(levels) - top / 2) / spread / math.sqrt(2)))
    return min(STRENGTHS - 1, int(share * STRENGTHS))


def skill_document(slate: Slate, catalog: Catalog, options: PromptParams) -> Document:
    """The slate's prompt, the trace that its levels command, and the order: a trace as the teacher writes them."""
    strengths = mean_strengths(slate.levels)
    order = order_of(strengths)
    linked = max(range(len(slate.candidates)), key=lambda rank: slate.levels[rank][0])
    words = fact_words(slate.levels[order[0]])
    best = sorted(range(len(words)), key=lambda fact: (-slate.levels[order[0]][fact], fact))[:2]
    trace = trace_text(slate, catalog, options, strengths, linked, [words[fact] for fact in best])
    return [
        (slate_prompt(slate, catalog, options), 0.0),
        (trace, 1.0),
        (THINK_END + answer_text(order, slate, catalog, strengths), 1.0),
    ]

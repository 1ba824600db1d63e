"""Mid-training documents: what aligns semantic IDs with items and with the layout of a slate (GR2.md tasks of OneRec-Think).

- sequence: a stretch of a user's base history, every next SID counts;
- caption: SID -> title and categories, and back;
- ordering: made-up relevances for random items, then the items by falling relevance; the short form of the next;
- reading: made-up features of each letter, then its relevance: their mean level, put on the scale of relevances;
- skill: a made-up slate in the full layout, with relevances by the same rule.

To read features by letter, weigh them up, sort and copy is a skill without any fact about users, so it can be practised without limit
and without leaks; which features matter how much is left to sft.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from stages.shared.lm.encoding import Segment
from stages.shared.slates.candidate_features import FEATURES, feature_tokens
from stages.shared.slates.prompts import (
    ASSISTANT,
    END,
    RELEVANCE_LEVELS,
    STEP_MATCH,
    THINK_END,
    USER,
    Catalog,
    PromptParams,
    Slate,
    answer_text,
    break_ties,
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
        # No weight on the end: where a random window stops says nothing about the user.
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


def full_layout_documents(catalog: Catalog, options: PromptParams, rng: np.random.Generator, candidates: int) -> Iterator[Document]:
    """Endless: a slate of random items with random bins and relevances, in the full layout of prompt, trace and answer."""
    items = len(catalog.sids)
    while True:
        # Without repetition, as in a real slate: a retriever leaves out what the user has taken.
        chosen = rng.choice(items, size=options.history + candidates, replace=False).tolist()
        slate = Slate(
            slate=0,
            user=0,
            split="made-up",
            timestamp=0,
            history=chosen[: options.history],
            candidates=chosen[options.history :],
            bins=rng.integers(0, 10, size=(candidates, len(FEATURES))).tolist(),
            target_rank=0,
        )
        yield full_layout_document(slate, catalog, options)


def ordering_documents(catalog: Catalog, rng: np.random.Generator, candidates: int) -> Iterator[Document]:
    """Endless: 2 to `candidates` random items with random relevances, then the same by falling relevance. The skill's short form."""
    while True:
        count = int(rng.integers(2, candidates + 1))
        chosen = rng.choice(len(catalog.sids), size=count, replace=False).tolist()
        relevances = rng.choice(RELEVANCE_LEVELS, size=count, replace=False).tolist()
        names = letters(count)
        listed = "".join(f"{name}{catalog.sids[item]}" for name, item in zip(names, chosen, strict=True))
        judged = "".join(f"{name} s{relevance}" for name, relevance in zip(names, relevances, strict=True))
        ordered = "".join(f" s{relevances[rank]}{names[rank]}{catalog.sids[chosen[rank]]}" for rank in order_of(relevances))
        yield [(f" candidates:{listed}{STEP_MATCH}{judged}", 0.0), (f"{THINK_END}{ordered}{END}", 1.0)]


def reading_documents(rng: np.random.Generator, candidates: int) -> Iterator[Document]:
    """Endless: the features of 1 to `candidates` letters, then the relevance of each letter. The other half of the skill's short form."""
    while True:
        count = int(rng.integers(1, candidates + 1))
        bins = rng.integers(0, 10, size=(count, len(FEATURES))).tolist()
        names = letters(count)
        listed = "".join(f" {' '.join(feature_tokens(candidate_bins))}{name}" for name, candidate_bins in zip(names, bins, strict=True))
        document: Document = [(f" candidates:{listed}{STEP_MATCH}", 0.0)]
        for name, relevance in zip(names, mean_relevances(bins), strict=True):
            document += [(name, 0.0), (f" s{relevance}", 1.0)]
        yield [*document, (END, 0.0)]


def mean_relevances(slate: Sequence[Sequence[int]]) -> list[int]:
    """One for each candidate's bins [K][features], no two alike."""
    return break_ties([mean_relevance(bins) for bins in slate], [sum(bins) for bins in slate])


def mean_relevance(bins: Sequence[int], top: int = 9) -> int:
    """The relevance of a candidate with these feature bins: their mean among means of uniform bins 0..top, as one of 32 equal shares."""
    # A uniform integer in 0..top has variance ((top + 1)^2 - 1) / 12; the mean of n of them has 1/n of that and is near normal.
    spread = math.sqrt(((top + 1) ** 2 - 1) / 12 / len(bins))
    share = 0.5 * (1 + math.erf((sum(bins) / len(bins) - top / 2) / spread / math.sqrt(2)))
    # Equal shares of the distribution, so that all 32 relevance tokens are practised about equally often.
    return min(RELEVANCE_LEVELS - 1, int(share * RELEVANCE_LEVELS))


def full_layout_document(slate: Slate, catalog: Catalog, options: PromptParams) -> Document:
    """The slate's prompt, the trace that its bins command, and the order: a trace as the teacher writes them."""
    relevances = mean_relevances(slate.bins)
    order = order_of(relevances)
    linked = max(range(len(slate.candidates)), key=lambda rank: slate.bins[rank][0])
    words = feature_tokens(slate.bins[order[0]])
    best = sorted(range(len(words)), key=lambda feature: (-slate.bins[order[0]][feature], feature))[:2]
    trace = trace_text(slate, catalog, options, relevances, linked, [words[feature] for feature in best])
    return [
        (slate_prompt(slate, catalog, options), 0.0),
        (trace, 1.0),
        (THINK_END + answer_text(order, slate, catalog, relevances), 1.0),
    ]

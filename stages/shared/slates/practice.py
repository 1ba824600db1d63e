"""Made-up exercises in the words of a layout: no fact about users or items, so they can be done without limit and without leaks.

- sorting: a trace's relevances, without what they follow from (`compact`) or with it (`chat`), then its conclusion and the answer;
- judging: a made-up slate, whose relevances follow from its features by a fixed rule, their mean; in full, or in short form without
  history and SIDs, in which more of the tokens are quotes and judgements.

To quote, to judge from what was quoted and to sort are skills; which features matter how much is left to sft. Practice must have the
form of the trace word by word: one in which the letter stood elsewhere did not transfer (docs/training.md).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.layouts.marks import THINK_END
from stages.shared.slates.slate import Slate, order_of
from stages.shared.slates.traces import taught_document

SHORT_SHARE = 0.65  # of judging documents; with full ones alone a decoder takes about twice the tokens to quote right
DRAWS = 32  # of bins, of which one commands a given relevance; of ten levels each is missed once in thirty times
TOP_BIN = 9  # of a made-up feature; real ones may have fewer bins (retrieve.feature_bins)

Document = list[tuple[str, float]]  # text, loss weight of its tokens


def sorting_documents(layout: Layout, items: int, rng: np.random.Generator, candidates: int) -> Iterator[Document]:
    """Endless: 2 to `candidates` letters with a relevance each, then the answer. Relevances lie close together, so ties are common."""
    while True:
        count = int(rng.integers(2, candidates + 1))
        # Real traces use a part of the scale each: levels spread evenly would hardly ever be neighbours.
        centre, spread = rng.uniform(0, layout.levels), rng.uniform(1, layout.levels / 2)
        relevances = rng.normal(centre, spread, count).round().clip(0, layout.levels - 1).astype(int).tolist()
        slate = made_up_slate(rng, items, 1, count, layout.features)
        if layout.dialogue:
            slate = replace(slate, bins=[commanding(rng, layout, level) for level in relevances])
            relevances = [judged_by_rule(layout, bins) for bins in slate.bins]
        taught = layout.conclusion(relevances) + THINK_END + layout.answer(slate, order_of(relevances))
        yield [*layout.judged(slate, relevances), (taught, 1.0)]


def commanding(rng: np.random.Generator, layout: Layout, level: int) -> list[int]:
    """Random bins of a candidate whose relevance by the rule is near `level`: not every level is one that few features can command."""
    drawn: list[list[int]] = rng.integers(0, TOP_BIN + 1, size=(DRAWS, len(layout.features))).tolist()
    return min(drawn, key=lambda bins: abs(judged_by_rule(layout, bins) - level))


def judged_by_rule(layout: Layout, bins: Sequence[int]) -> int:
    """The relevance of a candidate: `mean_relevance` of what a trace quotes of it."""
    return mean_relevance([level for feature, level in zip(layout.features, bins, strict=True) if feature in layout.quoted], layout.levels)


def judging_documents(layout: Layout, items: int, rng: np.random.Generator, history: int, candidates: int) -> Iterator[Document]:
    """Endless: a slate of 2 to `candidates` random items with random bins, its trace and its answer."""
    while True:
        slate = made_up_slate(rng, items, history, int(rng.integers(2, candidates + 1)), layout.features)
        # An answer by SID needs the SIDs, and one at once has no trace to practise: both take the full form.
        in_short = rng.random() < SHORT_SHARE and layout.reasoning and layout.answers_by_letter
        yield short_judging_document(layout, slate) if in_short else judging_document(layout, slate)


def short_judging_document(layout: Layout, slate: Slate) -> Document:
    relevances = [judged_by_rule(layout, bins) for bins in slate.bins]
    context, trace = layout.short_form(slate, relevances)
    return taught_document(context, trace, layout.answer(slate, order_of(relevances)), reasoning=True)


def judging_document(layout: Layout, slate: Slate) -> Document:
    """The slate's prompt, then the trace and the answer that its bins command."""
    relevances = [judged_by_rule(layout, bins) for bins in slate.bins]
    answer = layout.answer(slate, order_of(relevances))
    trace = layout.trace(slate, relevances) if layout.reasoning else ""
    return taught_document(layout.prompt(slate), trace, answer, layout.reasoning)


def made_up_slate(rng: np.random.Generator, items: int, history: int, candidates: int, features: tuple[str, ...]) -> Slate:
    """Random items, which repeat only where the catalogue has too few, and random bins; no target."""
    count = history + candidates
    # Without repetition, as in a real slate: a retriever leaves out what the user has taken.
    chosen = rng.choice(items, size=count, replace=items < count).tolist()
    bins = rng.integers(0, TOP_BIN + 1, size=(candidates, len(features))).tolist()
    return Slate(0, 0, "made-up", 0, chosen[:history], chosen[history:], bins, 0, features)


def mean_relevance(bins: Sequence[int], levels: int) -> int:
    """The relevance of a candidate with these feature bins: their mean among means of uniform bins, as one of equal shares."""
    # A uniform integer in 0..top has variance ((top + 1)^2 - 1) / 12; the mean of n of them has 1/n of that and is near normal.
    spread = math.sqrt(((TOP_BIN + 1) ** 2 - 1) / 12 / len(bins))
    share = 0.5 * (1 + math.erf((sum(bins) / len(bins) - TOP_BIN / 2) / spread / math.sqrt(2)))
    # Equal shares of the distribution, so that every relevance is practised about equally often.
    return min(levels - 1, int(share * levels))

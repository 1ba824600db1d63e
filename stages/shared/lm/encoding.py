"""Text in weighted segments -> token ids with a loss weight for each token."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerBase

from stages.shared.slates.layouts.dialogue import is_dialogue, rendered

Segment = tuple[str, float]  # text, loss weight of its tokens (0 = context only)
GIVE_UP = 256  # documents, none of which fits a row: as good as never for one that comes more often than once in fifty


@dataclass(frozen=True)
class WeightedExample:
    """ids [L] and the loss weight [L] of predicting each of them; weights[0] is never used.

    starts: where each of the documents packed into this row begins, ascending from 0; documents do not see each other.
    cut: tokens that its document lost at the end, because it was longer than a row.
    """

    ids: list[int]
    weights: list[float]
    starts: list[int] = field(default_factory=lambda: [0])
    cut: int = 0

    def positions(self) -> list[int]:
        """Of each token within its document [L]."""
        ends = [*self.starts[1:], len(self.ids)]
        return [place for start, end in zip(self.starts, ends, strict=True) for place in range(end - start)]


def encode(documents: Sequence[Sequence[Segment]], tokenizer: PreTrainedTokenizerBase) -> list[WeightedExample]:
    """Each document as one text; a token's weight is that of the segment in which it starts.

    Dialogues (layouts/dialogue.py) become the turns of the tokenizer's chat template, and their segments are split into tokens each on its
    own, as a prompt is when a model is asked.
    """
    if any(is_dialogue(segments[0][0]) for segments in documents):
        return [encode_dialogue(row, tokenizer) if is_dialogue(row[0][0]) else encode([row], tokenizer)[0] for row in documents]
    if not documents:  # the tokenizer takes no empty batch
        return []
    texts = ["".join(text for text, _ in segments) for segments in documents]
    batch = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    examples = []
    for segments, ids, offsets in zip(documents, batch["input_ids"], batch["offset_mapping"], strict=True):
        ends, position = [], 0
        for text, _ in segments:
            position += len(text)
            ends.append(position)
        examples.append(WeightedExample(ids, [segments[bisect_right(ends, start)][1] for start, _ in offsets]))
    return examples


def encode_dialogue(segments: Sequence[Segment], tokenizer: PreTrainedTokenizerBase) -> WeightedExample:
    ids: list[int] = []
    weights: list[float] = []
    for text, weight in rendered(segments, tokenizer):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += tokens
        weights += [weight] * len(tokens)
    return WeightedExample(ids, weights)


def pack(examples: Sequence[WeightedExample], length: int) -> list[WeightedExample]:
    """Joins short examples, in order, into rows of at most `length` tokens; longer ones are cut."""
    rows: list[WeightedExample] = []
    ids: list[int] = []
    weights: list[float] = []
    starts: list[int] = []
    cut = 0
    for example in examples:
        if ids and len(ids) + len(example.ids) > length:
            rows.append(WeightedExample(ids, weights, starts, cut))
            ids, weights, starts = [], [], []
        starts = [*starts, len(ids)]
        # The first token of a packed example follows the end of another one: there is nothing to learn from predicting it.
        ids = ids + example.ids[:length]
        weights = [*weights, 0.0, *example.weights[1:length]]
        cut = max(0, len(example.ids) - length)  # a longer one is alone in its row
    return [*rows, WeightedExample(ids, weights, starts, cut)] if ids else rows


def packed_rows(
    source: Iterator[Sequence[Segment]],
    count: int,
    length: int,
    tokenizer: PreTrainedTokenizerBase,
    portion: int,
    too_long: list[int] | None = None,
) -> list[WeightedExample]:
    """`count` rows of at most `length` tokens from an endless source, of which `portion` documents are drawn for each row still missing.

    too_long: None: longer documents are cut. A list: they are left out, and their lengths added to it; if the first GIVE_UP documents are
    all too long, there are no rows.
    """
    rows: list[WeightedExample] = []
    while len(rows) < count:
        # In portions, as how many documents fill a row depends on their lengths.
        examples = encode(list(islice(source, min(4096, portion * (count - len(rows))))), tokenizer)
        if too_long is not None:
            too_long += [len(example.ids) for example in examples if len(example.ids) > length]
            examples = [example for example in examples if len(example.ids) <= length]
            if not rows and not examples and len(too_long) >= GIVE_UP:
                return []
        rows += pack(examples, length)
    return rows[:count]


def epochs(rows: int, needed: int, rng: np.random.Generator) -> list[int]:
    """`needed` of the numbers below `rows`, epoch after epoch, each in a new random order."""
    return [int(row) for _ in range(-(-needed // rows)) for row in rng.permutation(rows)][:needed]


def mixed(rows: Mapping[str, Sequence[WeightedExample]], seed: int | Sequence[int]) -> list[WeightedExample]:
    """All rows, whatever they are for, in one random order: each batch holds every kind in about its share."""
    all_rows = [row for kind_rows in rows.values() for row in kind_rows]
    return [all_rows[i] for i in np.random.default_rng(seed).permutation(len(all_rows))]

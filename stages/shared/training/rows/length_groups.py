"""Rows of like lengths in one batch, so that less of it is padding, in an order that is random all the same."""

from collections.abc import Sequence

import numpy as np

from stages.shared.lm.encoding import WeightedExample

WINDOW = 50  # batches among which rows are sorted; transformers' LengthGroupedSampler takes as many


def grouped_by_length(lengths: Sequence[int], batch_size: int, seed: int) -> list[int]:
    """Places in rows of these lengths, each once: within WINDOW batches sorted by length, and these batches in random order.

    It knows of no processes: each takes whole batches of this one order in turn. Rows of equal length keep the order they had.
    """
    rng = np.random.default_rng([seed, 4])
    grouped: list[int] = []
    for start in range(0, len(lengths), WINDOW * batch_size):
        window = sorted(range(start, min(start + WINDOW * batch_size, len(lengths))), key=lambda place: lengths[place])
        batches = [window[first : first + batch_size] for first in range(0, len(window), batch_size)]
        # A batch that is not full stays the last: elsewhere it would shift the borders of those behind it.
        whole = len(window) // batch_size
        order = [*rng.permutation(whole).tolist(), *range(whole, len(batches))]
        grouped += [row for batch in order for row in batches[batch]]
    return grouped


def padding_share(rows: Sequence[WeightedExample], batch_size: int) -> float:
    """Of the tokens of all batches, how many fill up shorter rows."""
    batches = [[len(row.ids) for row in rows[start : start + batch_size]] for start in range(0, len(rows), batch_size)]
    return 1 - sum(map(sum, batches)) / sum(max(lengths) * len(lengths) for lengths in batches)

"""Slates longer than a prompt shows, read in windows (sliding windows of RankGPT, Sun et al. 2023, as in rank_llm).

A window of `size` candidates slides from the end of the order to its beginning, `step` candidates at a time. What the model puts first in a
window is carried into the next one, so a candidate from the very end can reach the top in one pass if every window wants it there.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from stages.shared.slates.slate import Slate


def window_starts(count: int, size: int, step: int) -> Iterator[int]:
    """Where the windows over `count` places begin, from the end forward; the last one begins at 0."""
    start = count - size
    while start > 0:
        yield start
        start -= step
    yield 0


def in_windows(slates: Sequence[Slate], size: int) -> bool:
    """Whether any slate is longer than a window of `size` candidates; 0 = whole slates."""
    return 0 < size < max((len(slate.candidates) for slate in slates), default=0)


def training_windows(slates: Sequence[Slate], size: int, seed: int) -> list[Slate]:
    """Each slate cut to one window of successive ranks that holds its target, drawn among all such; size 0, or a short slate: as it is.

    The draw depends on the seed and the slate's id alone, so one seed always cuts a slate to the same window.
    """
    return [_training_window(slate, size, seed) if 0 < size < len(slate.candidates) else slate for slate in slates]


def _training_window(slate: Slate, size: int, seed: int) -> Slate:
    first, last = max(0, slate.target_rank - size + 1), min(slate.target_rank, len(slate.candidates) - size)
    start = int(np.random.default_rng([seed, slate.slate]).integers(first, last + 1))
    return slate.at(range(start, start + size))

"""Answers to slates that are longer than a prompt shows: one to each window, from the end of the order to its beginning."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.slates.slate import Slate
from stages.shared.slates.windows import chosen, window_starts

BETWEEN = "\n\n"  # the texts of two windows


@dataclass(frozen=True)
class Windows:
    """size: candidates in one, 0 = whole slates; step: candidates that it moves at a time; passes: over all of a slate."""

    size: int
    step: int
    passes: int

    @classmethod
    def of(cls, size: int, step: int, passes: int) -> "Windows":
        """step: 0 = half a window, rounded up."""
        return cls(size, step or -(-size // 2), passes)


WHOLE = Windows(0, 0, 1)


def rank_by_windows(slates: Sequence[Slate], ask: Callable[[list[Slate]], list[Rankings]], windows: Windows) -> Rankings:
    """The orders after all passes; the slates have equally many candidates.

    A window whose answer is invalid keeps the order it was shown in; its fault is that of the slate, the first one if there are several.
    texts: of all windows, in the order asked; tokens: their sum.
    """
    orders = np.array([range(len(slate.candidates)) for slate in slates])
    faults = [""] * len(slates)
    texts: list[list[str]] = [[] for _ in slates]
    thoughts, rest = np.zeros(len(slates), int), np.zeros(len(slates), int)
    for start in [start for _ in range(windows.passes) for start in window_starts(orders.shape[1], windows.size, windows.step)]:
        window = orders[:, start : start + windows.size]
        [asked] = ask([chosen(slate, ranks) for slate, ranks in zip(slates, window.tolist(), strict=True)])
        orders[:, start : start + windows.size] = np.take_along_axis(window, asked.orders, axis=1)
        faults = [before or fault for before, fault in zip(faults, asked.faults, strict=True)]
        for row, text in enumerate(asked.texts):
            texts[row].append(text)
        thoughts, rest = thoughts + asked.reasoning_tokens, rest + asked.answer_tokens
    return Rankings(orders, faults, [BETWEEN.join(parts) for parts in texts], thoughts.tolist(), rest.tolist())

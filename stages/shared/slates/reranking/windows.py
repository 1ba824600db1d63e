"""Answers to slates that are longer than a prompt shows: one to each window, from the end of the order to its beginning."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.shared.slates.reranking.padding import padded_orders
from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.slates.slate import Slate
from stages.shared.slates.windows import window_starts

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
    """The orders after all passes. Slates of one length go through their windows together, each length after the other.

    A window whose answer is invalid keeps the order it was shown in; its fault is that of the slate, the first one if there are several.
    texts: of all windows, in the order asked; tokens: their sum.
    """
    lengths = [len(slate.candidates) for slate in slates]
    if len(set(lengths)) > 1:
        rows_of = [[row for row, length in enumerate(lengths) if length == own] for own in sorted(set(lengths))]
        return _in_order(rows_of, [rank_by_windows([slates[row] for row in rows], ask, windows) for rows in rows_of])
    orders = np.array([range(length) for length in lengths])
    faults = [""] * len(slates)
    texts: list[list[str]] = [[] for _ in slates]
    thoughts, rest = np.zeros(len(slates), int), np.zeros(len(slates), int)
    for start in [start for _ in range(windows.passes) for start in window_starts(orders.shape[1], windows.size, windows.step)]:
        window = orders[:, start : start + windows.size]
        [asked] = ask([slate.at(ranks) for slate, ranks in zip(slates, window.tolist(), strict=True)])
        orders[:, start : start + windows.size] = np.take_along_axis(window, asked.orders, axis=1)
        faults = [before or fault for before, fault in zip(faults, asked.faults, strict=True)]
        for row, text in enumerate(asked.texts):
            texts[row].append(text)
        thoughts, rest = thoughts + asked.reasoning_tokens, rest + asked.answer_tokens
    return Rankings(orders, faults, [BETWEEN.join(parts) for parts in texts], thoughts.tolist(), rest.tolist())


def _in_order(rows_of: Sequence[Sequence[int]], parts: Sequence[Rankings]) -> Rankings:
    """The rankings of parts of the slates as one, by row."""
    orders = padded_orders([order for part in parts for order in part.orders.tolist()])
    faults, texts, thoughts, answers = (
        [value for part in parts for value in getattr(part, name)] for name in ("faults", "texts", "reasoning_tokens", "answer_tokens")
    )
    place_of = {row: place for place, row in enumerate(row for rows in rows_of for row in rows)}
    return Rankings(orders, faults, texts, thoughts, answers).at([place_of[row] for row in sorted(place_of)])

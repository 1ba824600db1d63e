"""Sequences of unlike length as flat arrays, so that a batch of them is a few gathers and no loop over rows."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray


def flatten(sequences: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(row, place within the row, value) of every element, in order, all int64 [elements]."""
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    rows = np.repeat(np.arange(len(sequences)), lengths)
    positions = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return rows, positions, np.fromiter(chain.from_iterable(sequences), np.int64, len(rows))

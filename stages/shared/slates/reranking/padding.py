"""Slates of unlike length in one rectangular array: rows end in padding, orders in the places that nothing stands at, as they are.

With that a row of an order is a permutation of all places whatever the slate's length, and the rank of a candidate is its own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stages.shared.slates.slate import Slate


def padded(rows: Sequence[Sequence[Any]], fill: float, dtype: DTypeLike | None = None, width: int = 0) -> NDArray[Any]:
    """[n, K], K the longest row or `width`; `fill` where a row has ended. Elements may be rows of one length themselves: [n, K, F]."""
    width = max(width, max(map(len, rows), default=0))
    if all(len(row) == width for row in rows):
        return np.array(rows, dtype=dtype)
    whole = [np.asarray(row, dtype=dtype) for row in rows]
    array = np.full((len(rows), width, *next(row.shape[1:] for row in whole if len(row))), fill, dtype=dtype or whole[0].dtype)
    for filled, row in zip(array, whole, strict=True):
        filled[: len(row)] = row
    return array


def padded_orders(orders: Sequence[Sequence[int]], width: int = 0) -> NDArray[np.int_]:
    """[n, K]: each order, and then the places behind its slate's end as they are."""
    width = max(width, max(map(len, orders), default=0))
    return np.array([[*order, *range(len(order), width)] for order in orders])


def places(rows: Sequence[Sequence[Any]], width: int = 0) -> NDArray[np.bool_]:
    """[n, K]: where a row has an element."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    present: NDArray[np.bool_] = np.arange(max(width, lengths.max(initial=0))) < lengths[:, None]
    return present


def relevance_array(slates: Sequence[Slate]) -> NDArray[np.int_]:
    """What LambdaMART learns (recsys/lambdamart.py): the rank of each target [n], or where slates have grades those of all candidates
    [n, K]."""
    if any(slate.grades for slate in slates):
        return padded([slate.relevant for slate in slates], 0, np.int32)
    return np.array([slate.target_rank for slate in slates])

"""The k-core of the log: every user and every item left has interactions enough among those left."""

import numpy as np
from numpy.typing import NDArray

from stages.ingest.build.ids import counts


def core(user_N: NDArray[np.int32], item_N: NDArray[np.int32], min_user: int, min_item: int) -> NDArray[np.bool_]:
    """Which of N interactions (a pair at most once) are in the largest part where each user has `min_user` and each item `min_item`.

    Leaving out a user may leave an item short, and the other way round, so it is repeated to the fixpoint. The fixpoint is unique: the
    union of two such parts is one too, so the order of removal does not matter. With min_item 0 one round leaves out short users.
    """
    kept_N = np.ones(len(user_N), dtype=bool)
    user, item = user_N, item_N
    while True:
        rows_U, rows_I = counts(user), counts(item)
        if not (_too_few(rows_U, min_user) or _too_few(rows_I, min_item)):
            return kept_N
        enough = (rows_U >= min_user)[user]
        if min_item > 0:
            enough &= (rows_I >= min_item)[item]
        kept_N[kept_N] = enough
        user, item = user[enough], item[enough]


def _too_few(counts_I: NDArray[np.int64], least: int) -> bool:
    """Whether one that occurs at all occurs less often."""
    return bool(((counts_I > 0) & (counts_I < least)).any())

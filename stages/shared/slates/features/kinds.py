"""Which kind of item follows which, and whose brand: what the catalogue tells of candidates that the log has hardly seen.

An item's kind is the rarest of its categories, for a path its leaf. Transitions between a few kinds can be counted where those between
items are too many to have been seen.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

MEMORY = 2  # last items that count, each half as much as the one after it; chosen on validation slates (docs/synthetic-world.md)
DECAY = 0.5
PRIOR = 20.0  # pseudo-counts, spread over the kinds as all interactions are
NONE = -1  # no category, no brand: says nothing and shares nothing


@dataclass(frozen=True)
class Kinds:
    """C kinds, I items. The log of how much likelier c' is right after c than in general is unseen_C[c] + seen_CC[c, c']."""

    kind_I: Ints
    brand_I: Ints
    unseen_C: Floats
    seen_CC: sp.csr_matrix

    def follows(self, last_NM: Ints, items_NK: Ints) -> Floats:
        """[N, K]: that log, summed over the last items. last_NM: the last item, the one before it, ..., or -1."""

        def after(past_N1: Ints) -> Floats:
            before_NK, found_NK = np.broadcast_arrays(self.kind_I[past_N1], self.kind_I[items_NK])
            known_NK = (before_NK != NONE) & (found_NK != NONE)
            rows, columns = np.maximum(before_NK, 0), np.maximum(found_NK, 0)
            seen_NK = np.asarray(self.seen_CC[rows.ravel(), columns.ravel()]).reshape(rows.shape)
            return np.where(known_NK, self.unseen_C[rows] + seen_NK, 0).astype(np.float32)

        return _over_memory(last_NM, items_NK, after)

    def same_brand(self, last_NM: Ints, items_NK: Ints) -> Floats:
        """[N, K]: the last items of the candidate's brand."""
        brand_NK = self.brand_I[items_NK]
        return _over_memory(
            last_NM, items_NK, lambda past_N1: ((self.brand_I[past_N1] == brand_NK) & (brand_NK != NONE)).astype(np.float32)
        )


def count_kinds(users: Ints, columns: Ints, items: pl.DataFrame) -> Kinds:
    """users, columns: user and item of the interactions to count, by user, then position."""
    kind_I = kinds_of(items["categories"].to_list())
    count = int(kind_I.max()) + 1 if (kind_I != NONE).any() else 1
    kinds = kind_I[columns]
    # A kind that nobody took counts as taken once: its share of the prior may not be nothing.
    share_C = np.bincount(kinds[kinds != NONE], minlength=count) + 1.0
    share_C /= share_C.sum()
    pair = (users[:-1] == users[1:]) & (kinds[:-1] != NONE) & (kinds[1:] != NONE)
    ones = np.ones(int(pair.sum()))
    pairs_CC = sp.csr_matrix((ones, (kinds[:-1][pair], kinds[1:][pair])), shape=(count, count))
    pairs_CC.sum_duplicates()
    total_C = np.asarray(pairs_CC.sum(axis=1)).ravel()
    # log of (pairs + PRIOR share) / ((total + PRIOR) share), taken apart so that pairs never seen take no memory.
    seen_CC = pairs_CC.copy()
    seen_CC.data = np.log1p(pairs_CC.data / (PRIOR * share_C[pairs_CC.indices]))
    unseen_C = np.log(PRIOR / (total_C + PRIOR))
    return Kinds(kind_I, _numbered(items["brand"].to_list()), unseen_C.astype(np.float32), seen_CC.astype(np.float32))


def kinds_of(categories: list[list[str] | None]) -> Ints:
    """[items]: the number of each item's kind; NONE without any category."""
    return _numbered(kind_names(categories))


def kind_names(categories: list[list[str] | None]) -> list[str]:
    """[items]: the name of each item's rarest category, the first by name of equally rare ones; "" without any."""
    items_with = Counter(category for names in categories for category in set(names or []))
    return [min(names, key=lambda name: (items_with[name], name)) if names else "" for names in categories]


def _numbered(names: list[str]) -> Ints:
    """Names by number, in their order; "" is NONE."""
    number = {name: place for place, name in enumerate(sorted({*names} - {""}))}
    return np.array([number.get(name, NONE) for name in names], dtype=np.int32)


def _over_memory(last_NM: Ints, items_NK: Ints, value: Callable[[Ints], Floats]) -> Floats:
    """Sum over the last items of value(items [N, 1]) [N, K], by weight; an item that is not there adds nothing."""
    total_NK = np.zeros(items_NK.shape, dtype=np.float32)
    for steps_back, past_N in enumerate(last_NM.T):
        past_N1 = past_N[:, None]
        total_NK += np.where(past_N1 >= 0, np.float32(DECAY**steps_back) * value(np.maximum(past_N1, 0)), 0)
    return total_NK

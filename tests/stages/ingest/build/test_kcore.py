import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.ingest.build.kcore import core

pairs = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), unique=True, max_size=40)


def by_hand(rows: list[tuple[int, int]], min_user: int, min_item: int, seed: int) -> set[tuple[int, int]]:
    """Takes out one short user or item at a time, in any order."""
    left, order = set(rows), random.Random(seed)
    while True:
        users = {user for user, _ in left if sum(u == user for u, _ in left) < min_user}
        items = {item for _, item in left if sum(i == item for _, i in left) < min_item}
        short = [("user", user) for user in sorted(users)] + [("item", item) for item in sorted(items)]
        if not short:
            return left
        kind, number = order.choice(short)
        left = {(user, item) for user, item in left if (user if kind == "user" else item) != number}


def of(rows: list[tuple[int, int]], min_user: int, min_item: int) -> set[tuple[int, int]]:
    table = np.array(rows, dtype=np.int32).reshape(-1, 2)
    kept = core(table[:, 0], table[:, 1], min_user, min_item)
    return {row for row, keep in zip(rows, kept, strict=True) if keep}


@settings(max_examples=200, deadline=None)
@given(pairs, st.integers(1, 4), st.integers(0, 4), st.integers(0, 9))
def test_the_core_is_what_is_left_in_any_order_of_removal(rows, min_user, min_item, seed):
    assert of(rows, min_user, min_item) == by_hand(rows, min_user, min_item, seed)


def test_one_short_user_can_unravel_everything():
    """A chain: each user has two items, each item two users, but for the ends. Only repetition finds that nothing holds."""
    chain = [(place, item) for place in range(6) for item in (place, place + 1)]
    assert of(chain, 2, 2) == set()
    assert of([*chain, (6, 0), (6, 6)], 2, 2) == {*chain, (6, 0), (6, 6)}


@pytest.mark.parametrize(("min_item", "users"), [(0, {0}), (1, {0})])
def test_without_a_bound_on_items_only_short_users_go(min_item, users):
    rows = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 3)]
    assert {user for user, _ in of(rows, 3, min_item)} == users

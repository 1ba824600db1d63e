"""Slates of unlike length side by side: what stands behind the end of one changes nothing."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.shared.slates.reranking.padding import padded, padded_orders, places, relevance_array
from stages.shared.slates.reranking.rankings import from_scores, incoming
from stages.shared.slates.reranking.windows import Windows, rank_by_windows
from stages.shared.slates.slate import Slate
from tests.stages.shared.slates.reranking.test_windows import MANY, by_item

ORDERS = st.lists(st.integers(1, 6).flatmap(lambda n: st.permutations(range(n))), min_size=1, max_size=6)


@given(ORDERS, st.integers(0, 8))
def test_padded_orders_are_permutations_that_begin_with_the_order(orders, width):
    found = padded_orders(orders, width)
    assert found.shape == (len(orders), max(width, *map(len, orders)))
    assert (np.sort(found, axis=1) == np.arange(found.shape[1])).all()
    assert all(row[: len(order)].tolist() == list(order) for row, order in zip(found, orders, strict=True))
    kept = padded(orders, -1)
    assert (places(orders) == (kept >= 0)).all()
    assert all(row[row >= 0].tolist() == list(order) for row, order in zip(kept, orders, strict=True))


def test_rows_of_rows_keep_their_width():
    found = padded([[[1, 2]], [[3, 4], [5, 6]]], np.nan, np.float32)
    assert found.shape == (2, 2, 2) and np.isnan(found[0, 1]).all() and found[1].tolist() == [[3, 4], [5, 6]]


def slate(count: int, target: int, grades: tuple[int, ...] = ()) -> Slate:
    return Slate(count, 0, "test", 0, [1], list(range(count)), [[0] * 6] * count, target, grades=grades)


def test_rankings_of_unlike_slates():
    assert incoming([slate(2, 0), slate(3, 1)]).orders.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert from_scores(padded([[1.0, 2.0], [1.0, 3.0, 2.0]], -np.inf)).orders.tolist() == [[1, 0, 2], [1, 2, 0]]
    assert relevance_array([slate(2, 1), slate(3, 0)]).tolist() == [1, 0]
    assert relevance_array([slate(2, 1, (0, 3)), slate(3, 0, (1, 0, 2))]).tolist() == [[0, 3, 0], [1, 0, 2]]


def test_windows_of_unlike_slates_are_those_of_each_alone():
    few = [
        replace(one, candidates=one.candidates[:count], bins=one.bins[:count])
        for one, count in zip(MANY, (30, 7, 12, 30, 10, 12), strict=False)
    ]
    windows = Windows(10, 5, 1)
    together = rank_by_windows(few, lambda slates: [by_item(slates)], windows)
    for row, one in enumerate(few):
        alone = rank_by_windows([one], lambda slates: [by_item(slates)], windows)
        assert together.orders[row].tolist() == padded_orders(alone.orders.tolist(), 30)[0].tolist()
        assert together.texts[row] == alone.texts[0] and together.answer_tokens[row] == alone.answer_tokens[0]


def test_a_slate_takes_its_grades_along():
    shown = slate(3, 2, (1, 0, 3)).at([2, 0])
    assert (shown.candidates, shown.grades, shown.target_rank, shown.best_ranks) == ([2, 0], (3, 1), 0, [0])
    assert slate(3, 2).best_ranks == [2] and slate(3, 0, (2, 0, 2)).best_ranks == [0, 2]

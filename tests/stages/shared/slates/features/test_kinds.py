"""Which kind follows which, and whose brand, counted by hand."""

import numpy as np
import polars as pl
import pytest

from stages.shared.core.schemas import ITEMS
from stages.shared.slates.features.kinds import DECAY, NONE, PRIOR, Kinds, count_kinds, kinds_of

#         soap    shampoo   mask    comb    bare    a path's leaf is rarer than its root; item 4 has neither kind nor brand
PATHS = [["Bath", "Soap"], ["Bath", "Hair"], ["Bath", "Hair"], ["Comb"], []]
BRANDS = ["Aqua", "Aqua", "Lux", "", ""]
COMB, HAIR, SOAP = 0, 1, 2  # in the order of their names


def items(paths: list[list[str]], brands: list[str]) -> pl.DataFrame:
    rows = [(i, str(i), "", brand, path, None, "") for i, (path, brand) in enumerate(zip(paths, brands, strict=True))]
    return pl.DataFrame(rows, schema=ITEMS, orient="row")


def counted(*sequences: list[int], paths=PATHS, brands=BRANDS) -> Kinds:
    users = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
    return count_kinds(users, np.concatenate(sequences), items(paths, brands))


def test_the_kind_is_the_rarest_category_and_the_leaf_of_a_path():
    assert kinds_of(PATHS).tolist() == [SOAP, HAIR, HAIR, COMB, NONE]
    assert kinds_of([["b", "a"], ["a", "b"], None]).tolist() == [0, 0, NONE], "equally rare: the first by name"


def test_how_much_likelier_one_kind_is_after_another():
    """Pairs: soap -> hair twice, hair -> hair once; nothing goes from one user to the next, nor by way of an item without a kind."""
    kinds = counted([0, 1, 2], [0, 1], [3, 4, 0])
    share = {COMB: 2 / 10, HAIR: 4 / 10, SOAP: 4 / 10}  # of 7 interactions with a kind, each of 3 kinds once more
    lifts = kinds.follows(np.array([[0], [1], [3]]), np.array([[0, 1, 2, 3]] * 3))
    pairs = {(SOAP, HAIR): 2, (HAIR, HAIR): 1}
    for row, before in enumerate([SOAP, HAIR, COMB]):
        total = sum(count for (first, _), count in pairs.items() if first == before)
        for column, found in enumerate([SOAP, HAIR, HAIR, COMB]):
            chance = (pairs.get((before, found), 0) + PRIOR * share[found]) / (total + PRIOR)
            assert lifts[row, column] == pytest.approx(np.log(chance / share[found]), abs=1e-6)
    assert lifts[0, 1] > 0 > lifts[0, 0] and not lifts[2].any(), "after a comb nothing was ever seen, so nothing is likelier"


def test_the_last_item_counts_double_and_what_is_missing_adds_nothing():
    kinds = counted([0, 1, 2], [0, 1])
    one, other = (kinds.follows(np.array([[item]]), np.array([[1, 3]])) for item in (0, 2))
    assert np.allclose(kinds.follows(np.array([[0, 2]]), np.array([[1, 3]])), one + DECAY * other)
    assert np.allclose(kinds.follows(np.array([[0, -1]]), np.array([[1, 3]])), one)
    assert not kinds.follows(np.array([[4, 4]]), np.array([[0, 1]])).any(), "no kind before"
    assert not kinds.follows(np.array([[0, 1]]), np.array([[4]])).any(), "no kind after"


def test_a_shared_brand_and_none_at_all():
    kinds = counted([0, 1, 2])
    brands = kinds.same_brand(np.array([[0, 2], [2, 0], [4, 3], [2, -1]]), np.array([[0, 1, 2, 3, 4]] * 4))
    assert brands.tolist() == [[1, 1, DECAY, 0, 0], [DECAY, DECAY, 1, 0, 0], [0] * 5, [0, 0, 1, 0, 0]]


def test_a_catalogue_without_categories_and_brands():
    kinds = counted([0, 1, 2], paths=[[]] * 3, brands=[""] * 3)
    last, found = np.array([[0, 1]]), np.array([[1, 2]])
    assert not kinds.follows(last, found).any() and not kinds.same_brand(last, found).any()

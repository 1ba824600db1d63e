from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.shared.core.errors import StageError
from stages.tokenize.assignment.assign import optimal_last, random_last, squared_distances
from stages.tokenize.assignment.prefix_groups import prefix_groups, prefix_numbers

SIZE = 5
codes_that_fit = (
    st.lists(st.tuples(*[st.integers(0, SIZE - 1)] * 3), min_size=1, max_size=60)
    .filter(lambda rows: max(Counter(row[:2] for row in rows).values()) <= SIZE)
    .map(lambda rows: np.array(rows, dtype=np.int64))
)


def is_unique(codes: np.ndarray) -> bool:
    return len(set(map(tuple, codes.tolist()))) == len(codes)


@settings(deadline=None)
@given(codes_that_fit, st.integers(0, 99))
def test_random_last_is_a_bijection_for_anything_that_fits(codes, seed):
    before = codes.copy()
    assigned = random_last(codes, SIZE, seed)
    assert is_unique(assigned)
    np.testing.assert_array_equal(assigned[:, :-1], before[:, :-1])
    np.testing.assert_array_equal(codes, before)
    assert assigned.min() >= 0 and assigned.max() < SIZE
    np.testing.assert_array_equal(assigned, random_last(codes, SIZE, seed))


def test_the_last_level_is_uniform_for_the_lonely_and_for_siblings():
    """4,000 prefixes of one item, then 2,000 of two: every code equally often, within five standard errors."""
    for siblings, prefixes in ((1, 4000), (2, 2000)):
        codes = np.array([(prefix // 64, prefix % 64, 0) for prefix in range(prefixes) for _ in range(siblings)])
        counts = np.bincount(random_last(codes, 8, seed=1)[:, -1], minlength=8)
        assert np.abs(counts - 500).max() < 5 * np.sqrt(4000 * (1 / 8) * (7 / 8))


def nearest_last(codes: np.ndarray, latents: np.ndarray, books: np.ndarray) -> np.ndarray:
    return np.c_[codes[:, :-1], squared_distances(residuals_of(codes, latents, books), books[-1]).argmin(axis=1)]


def residuals_of(codes: np.ndarray, latents: np.ndarray, books: np.ndarray) -> np.ndarray:
    return latents - sum(books[level, codes[:, level]] for level in range(len(books) - 1))


@settings(max_examples=60, deadline=None)
@given(codes_that_fit, st.integers(0, 999))
def test_optimal_last_is_a_bijection_and_costs_the_least(codes, seed):
    """Against every permutation of codes, prefix by prefix."""
    generator = np.random.default_rng(seed)
    latents, books = generator.normal(size=(len(codes), 2)), generator.normal(size=(3, SIZE, 2))
    residuals, codebook = residuals_of(codes, latents, books), books[-1]
    assigned = optimal_last(nearest_last(codes, latents, books), latents, books)
    assert is_unique(assigned)
    np.testing.assert_array_equal(assigned[:, :-1], codes[:, :-1])
    for prefix in {tuple(row) for row in codes[:, :-1].tolist()}:
        items = [item for item, row in enumerate(codes[:, :-1].tolist()) if tuple(row) == prefix]
        cost = np.square(residuals[items][:, None] - codebook[None]).sum(axis=2)
        least = min(sum(cost[place, code] for place, code in enumerate(chosen)) for chosen in permutations(range(SIZE), len(items)))
        assert sum(cost[place, assigned[item, -1]] for place, item in enumerate(items)) == pytest.approx(least, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(codes_that_fit, st.integers(0, 99), st.sampled_from(["random", "optimal"]))
def test_codes_given_before_are_never_given_again(codes, seed, mode):
    """The last items of every prefix were there before; the others join."""
    old = np.array([code < 2 for code in codes[:, -1]])
    earlier = random_last(codes[old], SIZE, seed) if old.any() else codes[:0]
    taken = {}
    for row in earlier.tolist():
        taken[tuple(row[:-1])] = np.append(taken.get(tuple(row[:-1]), np.zeros(0, dtype=int)), row[-1])
    new = codes[~old]
    if mode == "random":
        joined = random_last(new, SIZE, seed, taken)
    else:
        generator = np.random.default_rng(seed)
        latents, books = generator.normal(size=(len(new), 2)), generator.normal(size=(3, SIZE, 2))
        joined = optimal_last(nearest_last(new, latents, books), latents, books, taken)
    assert is_unique(np.concatenate([earlier, joined]))


def test_a_full_prefix_uses_every_code_and_one_item_more_is_an_error():
    assert sorted(random_last(np.zeros((SIZE, 3), dtype=np.int64), SIZE, 0)[:, -1]) == list(range(SIZE))
    with pytest.raises(StageError, match=r"6 items share the codes \[0, 0\] and 5 last codes are free"):
        random_last(np.zeros((SIZE + 1, 3), dtype=np.int64), SIZE, 0)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_groups_by_counting(rows):
    codes = np.array(rows)
    numbers = prefix_numbers(codes)
    assert len(set(numbers.tolist())) == len(set(rows))
    assert all((rows[one] == rows[other]) == (numbers[one] == numbers[other]) for one in range(len(rows)) for other in range(len(rows)))
    found = {prefix: items.tolist() for prefix, items in prefix_groups(codes)}
    assert list(found) == sorted(found)
    assert found == {(first,): [item for item, row in enumerate(rows) if row[0] == first] for first in {row[0] for row in rows}}

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.shared.errors import StageError
from stages.tokenize.assign import collisions, perplexity, random_last, uniqueness, usage_counts

SIZE = 5
codes_that_fit = (
    st.lists(st.tuples(*[st.integers(0, SIZE - 1)] * 3), min_size=1, max_size=60)
    .filter(lambda rows: max(Counter(row[:2] for row in rows).values()) <= SIZE)
    .map(lambda rows: np.array(rows, dtype=np.int64))
)


@settings(deadline=None)
@given(codes_that_fit, st.integers(0, 99))
def test_random_last_is_a_bijection_for_anything_that_fits(codes, seed):
    before = codes.copy()
    assigned = random_last(codes, SIZE, seed)
    assert len({tuple(row) for row in assigned.tolist()}) == len(codes)
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


def test_a_full_prefix_uses_every_code_and_one_item_more_is_an_error():
    assert sorted(random_last(np.zeros((SIZE, 3), dtype=np.int64), SIZE, 0)[:, -1]) == list(range(SIZE))
    with pytest.raises(StageError, match=r"6 items share the first 2 codes \[0, 0\] but the last level has 5 codes"):
        random_last(np.zeros((SIZE + 1, 3), dtype=np.int64), SIZE, 0)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_uniqueness_and_collisions_by_counting(rows):
    codes, counted = np.array(rows), Counter(rows)
    assert uniqueness(codes) == pytest.approx(sum(counted[row] == 1 for row in rows) / len(rows))
    assert sorted(map(len, collisions(codes))) == sorted(count for count in counted.values() if count > 1)
    for items in collisions(codes):
        assert len({rows[item] for item in items}) == 1


def test_usage_and_perplexity():
    counts = usage_counts(np.array([[0, 1], [1, 1], [2, 1], [3, 1]]), 4)
    assert counts.tolist() == [[1, 1, 1, 1], [0, 4, 0, 0]]
    assert perplexity(counts[0]) == pytest.approx(4.0) and perplexity(counts[1]) == pytest.approx(1.0)

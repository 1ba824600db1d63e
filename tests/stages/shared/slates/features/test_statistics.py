"""Counts against loops over users and items."""

import numpy as np
import polars as pl
import pytest

from stages.shared.core.schemas import INTERACTIONS, ITEMS
from stages.shared.slates.features.statistics import SMOOTHING, TRANSITION_STEPS, count

SEQUENCES = [[0, 1, 2, 3, 1], [1, 0, 2], [4], [3, 2, 1, 0, 4]]
START = 1_000_000_000  # a moment, not a place in a sequence
N = 6  # item 5 was never taken
CATEGORIES = [["a", "b"], ["a"], ["b", "c"], [], ["c"], ["a"]]
BRANDS = ["", "x", "", "", "x", ""]


def tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    rows = [(user, item, place, START + 10 * place + user, "base") for user, own in enumerate(SEQUENCES) for place, item in enumerate(own)]
    items = [(i, str(i), "", BRANDS[i], CATEGORIES[i], None, "") for i in range(N)]
    return pl.DataFrame(rows, schema=INTERACTIONS, orient="row"), pl.DataFrame(items, schema=ITEMS, orient="row")


STATISTICS = count(*tables())
USERS_OF = [{user for user, own in enumerate(SEQUENCES) if item in own} for item in range(N)]
POPULARITY = np.array([len(users) for users in USERS_OF])


def test_cooccurrence_is_the_cosine_of_user_sets():
    expected = np.zeros((N, N))
    for i in range(N):
        for j in range(N):
            if i != j:
                expected[i, j] = len(USERS_OF[i] & USERS_OF[j]) / np.sqrt((len(USERS_OF[i]) + 1) * (len(USERS_OF[j]) + 1))
    assert np.allclose(STATISTICS.cooccurrence.toarray(), expected, atol=1e-6)


def test_transitions_count_less_by_distance_and_stay_within_a_user():
    expected = np.zeros((N, N))
    for own in SEQUENCES:
        for place, item in enumerate(own):
            for step in range(1, TRANSITION_STEPS + 1):
                if place + step < len(own):
                    expected[item, own[place + step]] += 1 / step
    expected /= np.sqrt(np.outer(POPULARITY + SMOOTHING, POPULARITY + SMOOTHING))
    assert np.allclose(STATISTICS.transition.toarray(), expected, atol=1e-6)


def test_popularity_counts_users_and_recency_the_last_quarter():
    assert np.allclose(STATISTICS.log_count, np.log1p(POPULARITY))
    times = sorted(START + 10 * place + user for user, own in enumerate(SEQUENCES) for place in range(len(own)))
    border = np.quantile(times, 0.75)
    late = [
        sum(START + 10 * place + user >= border for user, own in enumerate(SEQUENCES) for place, i in enumerate(own) if i == item)
        for item in range(N)
    ]
    assert np.allclose(STATISTICS.recency, (np.array(late) + 0.25 * SMOOTHING) / (POPULARITY + SMOOTHING))
    assert STATISTICS.recency[5] == pytest.approx(0.25), "never taken: the mean share"


@pytest.mark.parametrize("time", [pl.lit(START), pl.col("position").cast(pl.Int64), (3 * pl.col("position") + 5).cast(pl.Int64)])
def test_times_that_say_nothing_give_every_item_the_mean_share(time):
    """All alike, or places in a sequence, also with gaps where items were dropped."""
    interactions, items = tables()
    statistics = count(interactions.with_columns(timestamp=time.cast(pl.Int64)), items)
    assert statistics.recency.dtype == np.float32 and statistics.recency.tolist() == [0.25] * N
    assert (statistics.cooccurrence != STATISTICS.cooccurrence).nnz == 0, "the rest does not look at the time"


def test_no_item_occurs_with_itself():
    assert STATISTICS.cooccurrence.diagonal().tolist() == [0] * N
    assert STATISTICS.cooccurrence.nnz == (STATISTICS.cooccurrence.toarray() > 0).sum()
    assert STATISTICS.popularity.tolist() == POPULARITY.tolist()


def test_categories_and_brands_are_rows_of_unit_length():
    names = sorted({f"c:{name}" for own in CATEGORIES for name in own} | {"b:x"})
    expected = np.zeros((N, len(names)))
    for item in range(N):
        for name in [*(f"c:{category}" for category in CATEGORIES[item]), *(["b:x"] if BRANDS[item] else [])]:
            expected[item, names.index(name)] = 1
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(STATISTICS.category.toarray(), expected / np.maximum(lengths, 1e-6), atol=1e-6)


def test_items_without_any_category():
    interactions, items = tables()
    bare = items.with_columns(categories=pl.Series([[]] * N, dtype=pl.List(pl.String)), brand=pl.lit(""))
    assert count(interactions, bare).category.nnz == 0

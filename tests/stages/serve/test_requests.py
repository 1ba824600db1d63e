from hypothesis import given
from hypothesis import strategies as st

from stages.serve.requests import fallback, falling, places_of, spread

ITEMS = st.lists(st.none() | st.integers(0, 8), min_size=1, max_size=15)


@given(ITEMS, st.randoms())
def test_every_place_comes_once_known_items_first_and_unknown_ones_as_they_came(items, random):
    ranked = [*places_of(items), 99]  # 99 filled the slate and was not asked
    random.shuffle(ranked)
    order = spread(items, ranked)
    assert sorted(order) == list(range(len(items)))
    unknown = [place for place, item in enumerate(items) if item is None]
    assert list(order[len(order) - len(unknown) :]) == unknown
    distinct = list(dict.fromkeys(items[place] for place in order if items[place] is not None))
    assert distinct == [item for item in ranked if item != 99]


def test_duplicates_stay_beside_their_first_in_the_order_they_came():
    assert spread([5, 6, 5, None, 6], [6, 5]) == (1, 4, 0, 2, 3)


def test_a_fallback_is_the_incoming_order_and_its_scores_fall():
    result = fallback(4, "engine")
    assert (result.order, result.scores, result.fallback) == ((0, 1, 2, 3), (1.0, 0.75, 0.5, 0.25), "engine")
    assert falling(1) == (1.0,)

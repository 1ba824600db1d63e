import math

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.ingest.params import IngestParams
from stages.ingest.splits import order_and_split

ORDER = ["base", "slates", "valid", "test"]


def interactions(lengths: list[int], times: st.DataObject | None = None) -> pl.DataFrame:
    rows = []
    for user, length in enumerate(lengths):
        for item in range(length):
            timestamp = times.draw(st.integers(0, 5)) if times else item
            rows.append((user, item, timestamp, len(rows)))
    return pl.DataFrame(rows, schema={"user": pl.Int32, "item": pl.Int32, "timestamp": pl.Int64, "row": pl.Int64}, orient="row")


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    base_share=st.floats(0.1, 0.9),
    valid=st.integers(1, 4),
    test=st.integers(1, 12),
    times=st.data(),
)
def test_splits_partition_each_sequence_in_order(lengths, base_share, valid, test, times):
    raw = interactions(lengths, times)
    params = IngestParams(base_share=base_share, valid_positions=valid, test_positions=test)
    table = order_and_split(raw.sample(fraction=1.0, shuffle=True, seed=1), params)

    for user, length in enumerate(lengths):
        mine = table.filter(pl.col("user") == user)
        by_hand = sorted(raw.filter(pl.col("user") == user).iter_rows(), key=lambda row: (row[2], row[3]))
        assert mine["item"].to_list() == [row[1] for row in by_hand]
        assert mine["position"].to_list() == list(range(length))

        base = math.floor(base_share * length)
        slates = length - base - valid - test
        sizes = [base, slates, valid, test] if base >= 5 and slates >= 1 else [length, 0, 0, 0]
        assert mine["split"].to_list() == [name for name, size in zip(ORDER, sizes, strict=True) for _ in range(size)]


def test_splits_at_the_edge():
    # 27 interactions: floor(.45 * 27) = 12 base, 1 slates, 2 valid, 12 test. One fewer leaves nothing for slates.
    table = order_and_split(interactions([27, 25]), IngestParams(base_share=0.45, valid_positions=2, test_positions=12))
    counts = table.group_by("user", "split").len().sort("user", "split").rows()
    assert counts == [(0, "base", 12), (0, "slates", 1), (0, "test", 12), (0, "valid", 2), (1, "base", 25)]

"""Planted leaks are found."""

import polars as pl
import pytest

from stages.ingest.build.checks import check_leaks, cold_items
from stages.ingest.build.splits import SPLITS
from stages.shared.core.errors import StageError

ROWS = [
    (0, 0, 0, 10, "base"),
    (0, 1, 1, 20, "train"),
    (0, 2, 2, 30, "valid"),
    (0, 3, 3, 40, "test"),
    (1, 3, 0, 12, "base"),
    (1, 2, 1, 22, "train"),
    (1, 1, 2, 32, "valid"),
    (1, 4, 3, 42, "test"),
]


def table(changed: dict[int, tuple] | None = None) -> pl.DataFrame:
    rows = [(changed or {}).get(place, row) for place, row in enumerate(ROWS)]
    types = {"user": pl.Int32, "item": pl.Int32, "position": pl.Int32, "timestamp": pl.Int64, "split": pl.Enum(SPLITS)}
    return pl.DataFrame(rows, schema=types, orient="row")


def test_clean_tables_pass():
    assert check_leaks(table(), "positions") == {"pairs_in_two_splits": 0, "held_out_before_training": 0}
    assert check_leaks(table(), "global_time")["splits_that_overlap_in_time"] == 0
    equal_times = table({3: (0, 3, 3, 30, "test")})  # the order of the file has decided
    assert check_leaks(equal_times, "leave_one_out")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({3: (0, 0, 3, 40, "test")}, "user 0, item 0, in base, test"),
        ({3: (0, 3, 3, 15, "test")}, r"user 0, position 3 \(test\)"),  # a test interaction before a training one
        ({2: (0, 2, 2, 19, "valid")}, r"user 0, position 2 \(valid\)"),
        ({7: (1, 4, 3, 42, "train")}, r"user 1, position 3 \(train\)"),  # training after valid
        ({5: (1, 2, 0, 22, "train")}, "not sorted"),
        ({0: (1, 0, 0, 10, "base")}, "not sorted"),
    ],
)
def test_planted_leaks_are_found(changed, said):
    for split in ("positions", "leave_one_out", "global_time"):
        with pytest.raises(StageError, match=f"leak.*{said}"):
            check_leaks(table(changed), split)


def test_the_future_in_base_is_found_across_users():
    """User 1 in order by itself, but its base lies after user 0's train."""
    later = table({4: (1, 3, 0, 21, "base")})
    check_leaks(later, "positions")
    with pytest.raises(StageError, match="before train reaches to 21, and train begins at 20"):
        check_leaks(later, "global_time")
    same_moment = table({3: (0, 3, 3, 32, "test")})
    with pytest.raises(StageError, match="before test reaches to 32, and test begins at 32"):
        check_leaks(same_moment, "global_time")


def test_cold_items_are_counted():
    # Item 4 is in test alone. Test targets: 3, which user 1 has in base, and 4, which nobody has.
    assert cold_items(table()) == {
        "items_only_in_valid_or_test": 1,
        "test_targets_unseen_in_base": 1,
        "test_targets_unseen_in_base_share": 0.5,
    }

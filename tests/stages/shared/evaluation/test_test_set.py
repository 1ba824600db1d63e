"""Which test slates are kept for the decision on promotion."""

import polars as pl
import pytest

from stages.shared.evaluation.test_set import SlateTables, reported, reserved


def tables(users: int) -> SlateTables:
    rows = {"user": [user for user in range(users) for _ in range(3)], "split": ["train", "test", "test"] * users}
    return SlateTables(pl.DataFrame(rows).with_row_index("slate"), pl.DataFrame(), pl.DataFrame())


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_each_test_slate_is_on_one_side_and_a_users_slates_together(share: float) -> None:
    every = tables(1000)
    kept, told = reserved(every, share).slates, reported(every, share).slates
    assert sorted([*kept["slate"], *told["slate"]]) == every.slates["slate"].to_list()
    assert set(kept["split"]) == {"test"} and not set(kept["user"]) & set(told.filter(pl.col("split") == "test")["user"])
    assert told.filter(pl.col("split") == "train").height == 1000
    assert kept["user"].n_unique() / 1000 == pytest.approx(share, abs=0.05)


def test_who_is_reserved_stays_so_when_others_come_and_the_share_grows() -> None:
    few, many = (set(reserved(tables(users), 0.3).slates["user"]) for users in (200, 400))
    assert few == {user for user in many if user < 200}
    assert many < set(reserved(tables(400), 0.5).slates["user"])


def test_by_default_nothing_is_set_aside() -> None:
    every = tables(10)
    assert reported(every, 0.0) is every

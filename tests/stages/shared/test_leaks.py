"""Planted leaks are found, honest data passes."""

import polars as pl
import pytest

from stages.shared.errors import StageError
from stages.shared.leaks import check_no_heldout, check_test_is_later, training_interactions
from stages.shared.tables import INTERACTIONS, SLATES

SPLITS = ["base", "base", "slates", "valid", "test"]


def log(items: list[list[int]]) -> pl.DataFrame:
    """items: one list a user, an item for each of SPLITS."""
    rows = [(user, item, place, place, SPLITS[place]) for user, own in enumerate(items) for place, item in enumerate(own)]
    return pl.DataFrame(rows, schema=INTERACTIONS, orient="row")


def pairs(*rows: tuple[int, int]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema={"user": pl.Int32, "item": pl.Int32}, orient="row")


LOG = log([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])


def test_honest_pairs_pass_and_are_counted():
    base = training_interactions(LOG, ("base", "slates"))
    assert base["split"].unique().sort().to_list() == ["base", "slates"] and base.height == 6
    assert check_no_heldout(base, LOG, "x") == {"pairs_seen": 6, "pairs_held_out": 4, "overlap": 0}


def test_another_users_held_out_item_is_no_leak():
    assert check_no_heldout(pairs((1, 3), (1, 4)), LOG, "x")["overlap"] == 0


@pytest.mark.parametrize(("item", "split"), [(3, "valid"), (4, "test")])
def test_a_held_out_pair_fails_and_is_named(item, split):
    seen = pl.concat([training_interactions(LOG).select("user", "item"), pairs((0, item))])
    with pytest.raises(StageError, match=rf"leak in sft: 1 held-out .* user 0, item {item}, split {split}"):
        check_no_heldout(seen, LOG, "sft")


def test_leaks_are_counted_once_each():
    with pytest.raises(StageError, match="3 held-out interactions"):
        check_no_heldout(pairs((0, 3), (0, 3), (0, 4), (1, 1)), LOG, "x")


@pytest.mark.parametrize("splits", [("valid",), ("base", "test"), ("slates", "valid", "test")])
def test_training_on_a_held_out_split_is_refused(splits):
    with pytest.raises(StageError, match="is a leak; use base or slates"):
        training_interactions(LOG, splits)


def test_an_item_taken_before_the_cut_and_again_after_it_may_be_seen():
    """User 0 took item 0 in base and once more as test: having seen it says nothing of the second time."""
    repeated = log([[0, 1, 2, 3, 0]])
    assert check_no_heldout(training_interactions(repeated), repeated, "x") == {"pairs_seen": 2, "pairs_held_out": 1, "overlap": 0}
    with pytest.raises(StageError, match="item 3, split valid"):
        check_no_heldout(pairs((0, 3)), repeated, "x")


def test_an_item_repeated_within_the_held_out_part_is_one_pair():
    repeated = log([[0, 1, 2, 3, 3]])
    with pytest.raises(StageError, match="1 held-out interactions"):
        check_no_heldout(pairs((0, 3)), repeated, "x")


def slate(position: int, split: str = "test", history: tuple[int, ...] = (0, 1), target: int = 4) -> tuple:
    return (9, 0, position, position, split, list(history), [target, 5], [0.0, 0.0], target, 0)


def slates(*rows: tuple) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=SLATES, orient="row")


def test_test_slates_after_all_training_pass():
    counts = check_test_is_later(slates(slate(2, "train"), slate(3, "valid"), slate(4)), LOG)
    assert counts == {"test_slates": 1, "before_training_end": 0, "target_in_history": 0}


@pytest.mark.parametrize("position", [0, 2, 3])
def test_a_test_slate_at_or_before_the_last_trained_position_fails(position):
    with pytest.raises(StageError, match=f"test slate 9 of user 0 stands at {position}, trained up to 3"):
        check_test_is_later(slates(slate(4), slate(position)), LOG)


def test_a_target_in_its_own_history_fails():
    with pytest.raises(StageError, match=r"the target of test slate 9 \(item 4\) stands in its own history"):
        check_test_is_later(slates(slate(4, history=(0, 4, 1))), LOG)

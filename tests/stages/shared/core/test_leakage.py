"""Planted leaks are found, honest data passes."""

import numpy as np
import polars as pl
import pytest

from stages.shared.core.errors import StageError
from stages.shared.core.leakage import (
    check_candidate_features,
    check_counts,
    check_grades,
    check_histories,
    check_no_heldout,
    check_out_of_sample,
    check_targets,
    check_test_is_later,
    training_interactions,
)
from stages.shared.core.schemas import INTERACTIONS, LOGGED_SLATES, SLATES
from stages.shared.recsys.folds import assign_folds

SPLITS = ["base", "base", "train", "valid", "test"]


def log(items: list[list[int]]) -> pl.DataFrame:
    """items: one list a user, an item for each of SPLITS."""
    rows = [(user, item, place, place, SPLITS[place]) for user, own in enumerate(items) for place, item in enumerate(own)]
    return pl.DataFrame(rows, schema=INTERACTIONS, orient="row")


def pairs(*rows: tuple[int, int]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema={"user": pl.Int32, "item": pl.Int32}, orient="row")


LOG = log([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])


def test_honest_pairs_pass_and_are_counted():
    base = training_interactions(LOG, ("base", "train"))
    assert base["split"].unique().sort().to_list() == ["base", "train"] and base.height == 6
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


@pytest.mark.parametrize("splits", [("valid",), ("base", "test"), ("train", "valid", "test")])
def test_training_on_a_held_out_split_is_refused(splits):
    with pytest.raises(StageError, match="is a leak; use base or train"):
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


def slate(
    position: int, split: str = "test", history: tuple[int, ...] = (0, 1), target: int = 4, fold: int = -1, provenance: str = ""
) -> tuple:
    return (9, 0, position, position, split, list(history), [target, 5], [0.0, 0.0], target, 0, fold, provenance, [])


def slates(*rows: tuple) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=SLATES, orient="row")


def test_test_slates_after_all_training_pass():
    counts = check_test_is_later(slates(slate(2, "train"), slate(3, "valid"), slate(4)), LOG)
    assert counts == {"test_slates": 1, "before_training_end": 0, "target_in_history": 0}


@pytest.mark.parametrize("position", [0, 2, 3])
def test_a_test_slate_at_or_before_the_last_trained_position_fails(position):
    with pytest.raises(StageError, match=f"test slate 9 of user 0 is at position {position}, trained up to 3"):
        check_test_is_later(slates(slate(4), slate(position)), LOG)


def test_a_target_in_its_own_history_fails():
    with pytest.raises(StageError, match=r"the target of test slate 9 \(item 4\) is in its own history"):
        check_test_is_later(slates(slate(4, history=(0, 4, 1))), LOG)


def test_honest_histories_pass():
    honest = slates(slate(2, "train", (0, 1), 2), slate(4, history=(1, 2, 3)))
    assert check_histories(honest, LOG) == {"slates": 2, "target_in_history": 0, "later_in_history": 0}
    assert check_histories(slates(slate(4, history=())), LOG)["slates"] == 1


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_target_planted_in_a_history_fails_in_every_split(split):
    with pytest.raises(StageError, match=r"the target of 1 slates is in their own history \(first: slate 9, user 0, item 4\)"):
        check_histories(slates(slate(4, split, (0, 4))), LOG)


def test_a_later_item_planted_in_a_history_fails():
    with pytest.raises(StageError, match="at position 2 holds item 3, which user 0 took only at 3"):
        check_histories(slates(slate(2, "train", (0, 3), 2)), LOG)
    with pytest.raises(StageError, match="holds item 77, which user 0 never took"):
        check_histories(slates(slate(4, history=(0, 77))), LOG)


def test_slates_out_of_sample_pass_and_in_sample_ones_fail():
    base = training_interactions(LOG)
    honest = slates(slate(2, "train", (0, 1), 2), slate(4))
    assert check_out_of_sample(honest, base, "the retriever") == {"slates": 2, "in_sample": 0}
    planted = slates(slate(1, "train", (0,), 1), slate(4))
    with pytest.raises(
        StageError,
        match=r"retriever learnt from the targets of 1 of 2 slates \(first: slate 9, split train, fold -1, user 0, item 1\)",
    ):
        check_out_of_sample(planted, base, "the retriever")
    assert check_out_of_sample(planted, base.filter(pl.col("user") != 0), "fold 0")["in_sample"] == 0  # cross-fitted: it saw others only


ASSIGNED = pl.DataFrame({"user": [0, 1], "fold": [1, 0]}, schema={"user": pl.Int32, "fold": pl.Int32})
FOLDED = [slate(2, "train", (0, 1), 2, fold=1), slate(3, "valid", (0, 1), 3), slate(4)]


def test_slates_of_a_fold_are_ranked_without_its_users():
    seen = training_interactions(LOG, ("base", "train"))
    assert check_out_of_sample(slates(*FOLDED), seen, "the retriever", ASSIGNED) == {"slates": 3, "in_sample": 0}
    assert check_out_of_sample(slates(*FOLDED), seen.filter(pl.col("user") != 0), "the retriever of fold 1")["in_sample"] == 0


@pytest.mark.parametrize("fold", [-1, 0, 2])
def test_a_training_slate_of_another_fold_than_its_users_is_in_sample(fold):
    seen = training_interactions(LOG, ("base", "train"))
    planted = slates(slate(2, "train", (0, 1), 2, fold=fold), *FOLDED[1:])
    with pytest.raises(StageError, match=rf"the targets of 1 of 3 slates \(first: slate 9, split train, fold {fold}, user 0, item 2"):
        check_out_of_sample(planted, seen, "the retriever", ASSIGNED)
    with pytest.raises(StageError, match="learnt from the targets of 1 of 3"):
        check_out_of_sample(slates(*FOLDED), seen, "the retriever", ASSIGNED.filter(pl.col("user") == 1))  # assigned to no fold
    with pytest.raises(StageError, match="learnt from the targets of 1 of 3"):
        check_out_of_sample(slates(*FOLDED), seen, "the retriever")  # one model for all


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_held_out_slate_of_a_folds_model_fails(split):
    planted = slates(slate(3 if split == "valid" else 4, split, fold=1, target=3 if split == "valid" else 4))
    with pytest.raises(StageError, match=rf"1 held-out slates come from the model of a fold \(first: slate 9, split {split}, fold 1\)"):
        check_out_of_sample(planted, training_interactions(LOG, ("base", "train")), "the retriever", ASSIGNED)


def test_users_are_dealt_to_folds_of_a_size_and_alike_in_any_order():
    users = pl.Series([7, 3, 3, 11, 20, 21, 22, 23, 5, 5, 40], dtype=pl.Int32)
    assigned = assign_folds(users, 3, 1)
    assert assigned["user"].to_list() == sorted(set(users)) and sorted(assigned["fold"].value_counts()["count"]) == [3, 3, 3]
    assert assign_folds(users.reverse(), 3, 1).equals(assigned) and not assign_folds(users, 3, 2).equals(assigned)


def test_a_permuted_training_target_need_not_be_what_was_taken():
    noise = slate(2, "train", (0, 1), 5, provenance="permuted")
    assert check_targets(slates(noise, slate(2, "train", (0, 1), 2, provenance="injected")), LOG)["misplaced"] == 0
    for planted in (slate(4, "train", target=5, provenance="permuted"), slate(9, "train", target=5, provenance="permuted")):
        with pytest.raises(StageError, match="do not fit the interactions"):
            check_targets(slates(planted), LOG)


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("provenance", ["injected", "permuted"])
def test_a_held_out_slate_that_was_changed_for_training_fails(split, provenance):
    planted = slate(3, "valid", (0, 1), 3, provenance=provenance) if split == "valid" else slate(4, provenance=provenance)
    with pytest.raises(StageError, match=rf"leak: 1 held-out slates were changed .* slate 9, split {split}, provenance '{provenance}'"):
        check_targets(slates(planted), LOG)


def test_targets_where_their_split_says_pass():
    honest = slates(slate(1, "train", (0,), 1), slate(2, "train", (0, 1), 2), slate(3, "valid", (0, 1), 3), slate(4))
    assert check_targets(honest, LOG) == {"slates": 4, "misplaced": 0}


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        (slate(4, "train"), "split train, target 4, but user 0 has at 4 item 4, split test"),  # trains on a test target
        (slate(3, "train", target=3), "item 3, split valid"),
        (slate(2, "test", target=2), "split test, target 2, but user 0 has at 2 item 2, split train"),  # tests where it was trained
        (slate(4, "test", target=5), "target 5, but user 0 has at 4 item 4"),
        (slate(9), "has at 9 nothing"),
    ],
)
def test_a_target_of_another_split_or_none_fails(planted, words):
    with pytest.raises(StageError, match=rf"leak: 1 slates do not fit the interactions .*{words}"):
        check_targets(slates(slate(3, "valid", (0, 1), 3), planted), LOG)


def test_statistics_of_base_pass_and_test_items_in_them_fail():
    base = np.bincount(training_interactions(LOG)["item"], minlength=5)
    assert check_counts(base, LOG, "popularity") == {"items": 5, "overcounted": 0}
    everything = np.bincount(LOG["item"], minlength=5)
    with pytest.raises(StageError, match=r"leak in popularity: 5 items .* base hold them \(first: item 0, counted 2, held 1\)"):
        check_counts(everything, LOG, "popularity")
    one_more = base + np.eye(5, dtype=int)[2]
    with pytest.raises(StageError, match="1 items"):
        check_counts(one_more, LOG, "popularity")
    assert (
        check_counts(np.bincount(training_interactions(LOG, ("base", "train"))["item"], minlength=5), LOG, "x", ("base", "train"))["items"]
        == 5
    )
    with pytest.raises(StageError, match="is a leak; use base or train"):
        check_counts(everything, LOG, "popularity", ("base", "test"))
    with pytest.raises(StageError, match="counts of 3 items, but the interactions go up to item 4"):
        check_counts(base[:3], LOG, "popularity")


def features(counts: list[int]) -> pl.DataFrame:
    return pl.DataFrame({"item": list(range(len(counts))), "po": np.log1p(counts).astype(np.float32)})


def test_features_counted_from_the_test_split_fails():
    base = np.bincount(training_interactions(LOG)["item"], minlength=5).tolist()
    assert check_candidate_features(features(base), LOG) == {"items": 5, "overcounted": 0}
    with pytest.raises(
        StageError, match=r"leak in data/retrieve/candidate_features.parquet: 5 items .* \(first: item 0, counted 2, held 1\)"
    ):
        check_candidate_features(features(np.bincount(LOG["item"], minlength=5).tolist()), LOG)
    with pytest.raises(StageError, match=r"first: item 5, counted 1, held 0"):
        check_candidate_features(features([*base, 1]), LOG)


@pytest.mark.parametrize("users", [1, 3, 1000, 20_000])
def test_features_in_single_precision_is_told_from_one_user_more(users):
    many = pl.DataFrame({"user": range(users), "item": [0] * users, "split": ["base"] * users})
    assert check_candidate_features(features([users]), many)["overcounted"] == 0
    with pytest.raises(StageError, match=f"counted {users + 1}, held {users}"):
        check_candidate_features(features([users + 1]), many)


@pytest.mark.parametrize(
    ("grades", "candidates", "said"),
    [
        ([0, 1, 2], [9, 12, 13], None),
        ([1, 0], [12, 9, 13], "not one grade for each candidate"),
        ([1, 0, 1], [9, 12, 13], "do not grade their target"),
        ([0, 1, 1], [9, 12, 14], "calls item 14 taken, which user 0 took at 4, split test"),
        ([1, 1, 0], [9, 12, 13], "calls item 9 taken, which user 0 took nothing"),
        ([0, 1, 1], [9, 12, 11], "calls item 11 taken, which user 0 took at 1, split base"),
    ],
)
def test_what_a_logged_slate_calls_taken_is_held_against_the_log(grades, candidates, said):
    splits = ["base", "base", "train", "train", "test"]
    interactions = pl.DataFrame(
        [(0, 10 + place, place, place, split) for place, split in enumerate(splits)], schema=INTERACTIONS, orient="row"
    )
    row = (0, 0, 2, 2, "train", [10, 11], candidates, [0.0] * 3, 12, candidates.index(12), -1, "", [], grades, None)
    slates = pl.DataFrame([row], schema=LOGGED_SLATES, orient="row")
    if said is None:
        assert check_grades(slates, interactions) == {"taken": 2, "misplaced": 0}
    else:
        with pytest.raises(StageError, match=said):
            check_grades(slates, interactions)

"""Leak checks run in every pipeline: what a stage learns from must not hold a validation or test interaction."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.shared.core.errors import StageError

HELD_OUT = ("valid", "test")


def training_interactions(interactions: pl.DataFrame, splits: tuple[str, ...] = ("base",)) -> pl.DataFrame:
    """The rows of `splits`, never of a held-out one."""
    forbidden = set(splits) & set(HELD_OUT)
    if forbidden:
        raise StageError(f"training on the split {', '.join(sorted(forbidden))} is a leak; use base or train")
    return interactions.filter(pl.col("split").is_in(list(splits)))


def training_counts(interactions: pl.DataFrame, items: int, splits: tuple[str, ...] = ("base",)) -> NDArray[np.int_]:
    """[items]: how often the rows of `splits` hold each item."""
    counts: NDArray[np.int_] = np.bincount(training_interactions(interactions, splits)["item"].to_numpy(), minlength=items)
    return counts


def check_no_heldout(seen: pl.DataFrame, interactions: pl.DataFrame, what: str) -> dict[str, int]:
    """Fails if any (user, item) pair of `seen` is a validation or test interaction.

    `seen`: columns user and item, every pair that `what` learns from as history, target or count.
    Returns the counts for metrics.json. Pairs are compared, not positions: a pair the user took both before and
    after the cut is not counted: only held-out pairs that the user did not take earlier are kept.
    """
    earlier = interactions.filter(~pl.col("split").is_in(HELD_OUT)).select("user", "item").unique()
    held = interactions.filter(pl.col("split").is_in(HELD_OUT)).select("user", "item", "split").unique(["user", "item"])
    held = held.join(earlier, on=["user", "item"], how="anti")
    pairs = seen.select("user", "item").unique()
    overlap = pairs.join(held, on=["user", "item"], how="inner").sort("user", "item")
    if overlap.height:
        user, item, split = overlap.row(0)
        raise StageError(
            f"leak in {what}: {overlap.height} held-out interactions are in its training data "
            f"(first: user {user}, item {item}, split {split}); build it from the splits base and train only"
        )
    return {"pairs_seen": pairs.height, "pairs_held_out": held.height, "overlap": 0}


def check_test_is_later(slates: pl.DataFrame, interactions: pl.DataFrame) -> dict[str, int]:
    """Fails unless every test slate of a user comes after everything that anything was trained on for that user: base, train, valid.

    Returns the counts for metrics.json.
    """
    trained = interactions.filter(pl.col("split") != "test").group_by("user").agg(pl.col("position").max().alias("last"))
    test = slates.filter(pl.col("split") == "test").join(trained, on="user", how="left")
    early = test.filter(pl.col("position") <= pl.col("last"))
    in_history = test.filter(pl.col("history").list.contains(pl.col("target")))
    if early.height:
        row = early.row(0, named=True)
        raise StageError(
            f"leak: test slate {row['slate']} of user {row['user']} is at position {row['position']}, trained up to {row['last']}"
        )
    if in_history.height:
        row = in_history.row(0, named=True)
        raise StageError(f"leak: the target of test slate {row['slate']} (item {row['target']}) is in its own history")
    return {"test_slates": test.height, "before_training_end": 0, "target_in_history": 0}


def check_histories(slates: pl.DataFrame, interactions: pl.DataFrame) -> dict[str, int]:
    """Fails unless the history of every slate, of whatever split, is what its user took before its position, the target not among it."""
    history_items = slates.select("slate", "user", "position", "target", pl.col("history").alias("item")).explode("item").drop_nulls("item")
    in_history = history_items.filter(pl.col("item") == pl.col("target")).sort("slate")
    if in_history.height:
        row = in_history.row(0, named=True)
        raise StageError(
            f"leak: the target of {in_history['slate'].n_unique()} slates is in their own history "
            f"(first: slate {row['slate']}, user {row['user']}, item {row['target']}); a history ends before its position"
        )
    first = interactions.group_by("user", "item").agg(pl.col("position").min().alias("taken"))
    early = history_items.join(first, on=["user", "item"], how="left").filter(
        pl.col("taken").is_null() | (pl.col("taken") >= pl.col("position"))
    )
    if early.height:
        row = early.sort("slate", "item").row(0, named=True)
        when = "never took" if row["taken"] is None else f"took only at {row['taken']}"
        raise StageError(
            f"leak: the history of slate {row['slate']} at position {row['position']} holds item {row['item']}, which user {row['user']} "
            f"{when}; a history ends before its position"
        )
    return {"slates": slates.height, "target_in_history": 0, "later_in_history": 0}


def check_out_of_sample(slates: pl.DataFrame, seen: pl.DataFrame, what: str, assigned: pl.DataFrame | None = None) -> dict[str, int]:
    """Fails if the model that ranked a slate learnt from its target. An in-sample target ranks higher than one out of sample would, so a
    reranker trained on it learns a false initial ranking.

    `seen`: columns user and item, all that `what` learnt from. `assigned`: columns user and fold, each user once; the model of fold f
    learnt from `seen` minus the users of f, and ranks training slates only. Without it, one model ranked all.
    """
    pairs = seen.select("user", pl.col("item").alias("target")).unique()
    inside = slates.join(pairs, on=["user", "target"], how="semi").sort("slate")
    if assigned is not None:
        fold_of_user = assigned.select("user", pl.col("fold").alias("assigned"))
        # Of fold f's model only slates of f's own users are out of sample; those of any other fold or of none stay suspects.
        inside = inside.join(fold_of_user, on="user", how="left", maintain_order="left")
        inside = inside.filter(pl.col("fold").ne_missing(pl.col("assigned")))
    if inside.height:
        row = inside.row(0, named=True)
        raise StageError(
            f"leak: {what} learnt from the targets of {inside.height} of {slates.height} slates (first: slate {row['slate']}, split "
            f"{row['split']}, fold {row['fold']}, user {row['user']}, item {row['target']}); make slates only where it has not looked"
        )
    partial = slates.filter(pl.col("split").is_in(HELD_OUT) & (pl.col("fold") >= 0)).sort("slate")
    if partial.height:
        row = partial.row(0, named=True)
        raise StageError(
            f"{partial.height} held-out slates come from the model of a fold (first: slate {row['slate']}, split {row['split']}, fold "
            f"{row['fold']}), not from that of all users, fold -1; rerun: gr2 run retrieve"
        )
    return {"slates": slates.height, "in_sample": 0}


def check_targets(slates: pl.DataFrame, interactions: pl.DataFrame) -> dict[str, int]:
    """Fails unless each slate's target is what its user took at its position, and held out as the slate's split says.

    A training slate's is held out nowhere. Marked slates are for training only; of those the target may be another item.
    """
    marked = slates.filter((pl.col("provenance") != "") & pl.col("split").is_in(HELD_OUT)).sort("slate")
    if marked.height:
        row = marked.row(0, named=True)
        raise StageError(
            f"leak: {marked.height} held-out slates were changed for training (first: slate {row['slate']}, split {row['split']}, "
            f"provenance '{row['provenance']}'); only training slates may be; rerun: gr2 run retrieve"
        )
    taken = interactions.select("user", "position", "item", pl.col("split").alias("taken_in"))
    joined = slates.join(taken, on=["user", "position"], how="left")
    expected = pl.col("split")
    wrong = joined.filter(
        ((pl.col("item") != pl.col("target")) & (pl.col("provenance") == "")).fill_null(True)
        | pl.col("item").is_null()
        | pl.when(expected.is_in(HELD_OUT)).then(pl.col("taken_in") != expected).otherwise(pl.col("taken_in").is_in(HELD_OUT))
    ).sort("slate")
    if wrong.height:
        row = wrong.row(0, named=True)
        real = "nothing" if row["item"] is None else f"item {row['item']}, split {row['taken_in']}"
        raise StageError(
            f"leak: {wrong.height} slates do not fit the interactions (first: slate {row['slate']}, split {row['split']}, target "
            f"{row['target']}, but user {row['user']} has at {row['position']} {real}); rerun: gr2 run retrieve"
        )
    return {"slates": slates.height, "misplaced": 0}


def check_grades(slates: pl.DataFrame, interactions: pl.DataFrame) -> dict[str, int]:
    """Fails unless everything that a logged slate calls taken was taken by its user at the slate's position or later, in its split, and the
    target is among it. slates: LOGGED_SLATES."""
    unlike = slates.filter(pl.col("grades").list.len() != pl.col("candidates").list.len()).sort("slate")
    no_grade = slates.filter(pl.col("grades").list.get(pl.col("target_rank"), null_on_oob=True).fill_null(0) <= 0).sort("slate")
    for faulty, what in ((unlike, "have not one grade for each candidate"), (no_grade, "do not grade their target")):
        if faulty.height:
            raise StageError(f"{faulty.height} logged slates {what} (first: slate {faulty['slate'][0]}); rerun: gr2 run retrieve")
    taken = slates.select("slate", "user", "position", "split", pl.col("candidates").alias("item"), "grades").explode("item", "grades")
    taken = taken.filter(pl.col("grades") > 0)
    first = interactions.select("user", "item", pl.col("position").alias("taken"), pl.col("split").alias("taken_in"))
    joined = taken.join(first, on=["user", "item"], how="left")
    wrong = joined.filter(pl.col("taken").is_null() | (pl.col("taken") < pl.col("position")) | (pl.col("taken_in") != pl.col("split")))
    if wrong.height:
        row = wrong.sort("slate", "item").row(0, named=True)
        real = "nothing" if row["taken"] is None else f"at {row['taken']}, split {row['taken_in']}"
        raise StageError(
            f"leak: {wrong['slate'].n_unique()} logged slates do not fit the interactions (first: slate {row['slate']} at position "
            f"{row['position']}, split {row['split']}, calls item {row['item']} taken, which user {row['user']} took {real}); rerun: "
            "gr2 run retrieve"
        )
    return {"taken": taken.height, "misplaced": 0}


def check_counts(counts: NDArray[np.int_], interactions: pl.DataFrame, what: str, splits: tuple[str, ...] = ("base",)) -> dict[str, int]:
    """Fails if any item is counted in `counts` [items] more often than the rows of `splits` hold it."""
    allowed = training_counts(interactions, len(counts), splits)
    if len(allowed) > len(counts):
        raise StageError(f"{what}: counts of {len(counts)} items, but the interactions go up to item {len(allowed) - 1}")
    overcounted = np.flatnonzero(counts > allowed)
    if overcounted.size:
        raise StageError(
            f"leak in {what}: {overcounted.size} items are counted more often than the splits {', '.join(splits)} hold them "
            f"(first: item "
            f"{overcounted[0]}, counted {counts[overcounted[0]]}, held {allowed[overcounted[0]]}); count these splits only"
        )
    return {"items": len(counts), "overcounted": 0}


def check_candidate_features(
    feature_table: pl.DataFrame, interactions: pl.DataFrame, splits: tuple[str, ...] = ("base",)
) -> dict[str, int]:
    """Fails if the popularity among the features, the log1p of an item's users, is more than `splits` hold: whatever the teacher and
    LambdaMART read was then counted from more. The other features come from the same count, and are not counted again here."""
    held = training_interactions(interactions, splits).group_by("item").agg(pl.col("user").n_unique().alias("users"))
    counted = (
        feature_table.group_by("item").agg(pl.col("po").max()).join(held, on="item", how="left").with_columns(pl.col("users").fill_null(0))
    )
    overcounted = counted.filter(pl.col("po").cast(pl.Float64) > pl.col("users").log1p() * (1 + 1e-6)).sort("item")  # float32 rounds
    if overcounted.height:
        row = overcounted.row(0, named=True)
        raise StageError(
            f"leak in data/retrieve/candidate_features.parquet: {overcounted.height} items are counted more often than the splits "
            f"{', '.join(splits)} hold them "
            f"(first: item {row['item']}, counted {np.expm1(row['po']):.0f}, held {row['users']}); rerun: gr2 run retrieve"
        )
    return {"items": counted.height, "overcounted": 0}

"""Leak checks run in every pipeline: what a stage learns from must not hold a validation or test interaction."""

import polars as pl

from stages.shared.errors import StageError

HELD_OUT = ("valid", "test")


def training_interactions(interactions: pl.DataFrame, splits: tuple[str, ...] = ("base",)) -> pl.DataFrame:
    """The rows of `splits`, never of a held-out one."""
    forbidden = set(splits) & set(HELD_OUT)
    if forbidden:
        raise StageError(f"training on the split {', '.join(sorted(forbidden))} is a leak; use base or slates")
    return interactions.filter(pl.col("split").is_in(list(splits)))


def check_no_heldout(seen: pl.DataFrame, interactions: pl.DataFrame, what: str) -> dict[str, int]:
    """Fails if any (user, item) pair of `seen` is a validation or test interaction.

    `seen`: columns user and item, every pair that `what` learns from as history, target or count.
    Returns the counts for metrics.json. Pairs are compared, not positions: a pair the user took both before and
    after the cut is told apart by keeping only held-out pairs that the user did not take earlier too.
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
            f"(first: user {user}, item {item}, split {split}); build it from the splits base and slates only"
        )
    return {"pairs_seen": pairs.height, "pairs_held_out": held.height, "overlap": 0}


def check_test_is_later(slates: pl.DataFrame, interactions: pl.DataFrame) -> dict[str, int]:
    """Fails unless every test slate of a user stands after all that anything was trained on for that user: base, slates, valid.

    Returns the counts for metrics.json.
    """
    trained = interactions.filter(pl.col("split") != "test").group_by("user").agg(pl.col("position").max().alias("last"))
    test = slates.filter(pl.col("split") == "test").join(trained, on="user", how="left")
    early = test.filter(pl.col("position") <= pl.col("last"))
    known = test.filter(pl.col("history").list.contains(pl.col("target")))
    if early.height:
        row = early.row(0, named=True)
        raise StageError(f"leak: test slate {row['slate']} of user {row['user']} stands at {row['position']}, trained up to {row['last']}")
    if known.height:
        row = known.row(0, named=True)
        raise StageError(f"leak: the target of test slate {row['slate']} (item {row['target']}) stands in its own history")
    return {"test_slates": test.height, "before_training_end": 0, "target_in_history": 0}

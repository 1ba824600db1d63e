"""Leak checks of the splits, made from the finished table alone: one that fails stops the stage."""

import numpy as np
import polars as pl

from stages.ingest.build.pairs import pair_keys
from stages.ingest.build.splits import SPLITS, counts_by_split, places
from stages.shared.core.errors import StageError

TRAINING = ("base", "train")


def check_leaks(table: pl.DataFrame, split: str) -> dict[str, int]:
    """Fails on a leak; else what was checked, for metrics.json. `table`: as in Interactions; `split`: as in ingest.split."""
    counts = {"pairs_in_two_splits": _pairs_twice(table), "held_out_before_training": _out_of_order(table)}
    if split == "global_time":
        counts["splits_that_overlap_in_time"] = _overlap(table)
    return counts


def cold_items(table: pl.DataFrame) -> dict[str, int | float]:
    """Reported only: items that stand in valid or test alone, and how many test targets the retriever never met in base."""
    item_N, code_N = table["item"].to_numpy(), table["split"].to_physical().to_numpy()
    base, train, valid, test = counts_by_split(code_N, item_N, int(item_N.max()) + 1)
    unseen = int(test[base == 0].sum())
    return {
        "items_only_in_valid_or_test": int(((base + train == 0) & (valid + test > 0)).sum()),
        "test_targets_unseen_in_base": unseen,
        "test_targets_unseen_in_base_share": round(unseen / max(1, int(test.sum())), 6),
    }


def _pairs_twice(table: pl.DataFrame) -> int:
    """A pair once in all is in one split only; the filter for repeats has seen to it."""
    items = int(table["item"].to_numpy().max()) + 1
    # Sorting numbers is faster than grouping rows, and takes 8 bytes a row in place.
    key_N = pair_keys(table, items)
    key_N.sort()
    if (twice := key_N[1:][key_N[1:] == key_N[:-1]]).size:
        user, item = divmod(int(twice[0]), items)
        rows = table.filter((pl.col("user") == user) & (pl.col("item") == item))
        raise _leak_error(f"{twice.size} (user, item) pairs stand twice (first: user {user}, item {item}, in {', '.join(rows['split'])})")
    return 0


def _out_of_order(table: pl.DataFrame) -> int:
    """Along each user's time and positions the split never goes back."""
    user_N, code_N = table["user"].to_numpy(), table["split"].to_physical().to_numpy()
    same_user = user_N[1:] == user_N[:-1]
    if (user_N[1:] < user_N[:-1]).any() or (places(user_N)[0] != table["position"].to_numpy()).any():
        raise _leak_error("the rows are not sorted by user and position")
    # Of neighbouring rows alone: the table is sorted, as was just checked, so this covers all pairs.
    goes_back = same_user & ((code_N[1:] < code_N[:-1]) | (np.diff(table["timestamp"].to_numpy()) < 0))
    if goes_back.any():
        user, _, position, _, split = table.row(int(goes_back.argmax()) + 1)
        raise _leak_error(f"user {user}, position {position} ({split}) follows a later split or a later time")
    return 0


def _overlap(table: pl.DataFrame) -> int:
    """No interaction of a split at or after the first of a later one."""
    time_N, code_N = table["timestamp"].to_numpy(), table["split"].to_physical().to_numpy()
    for code, split in enumerate(SPLITS[1:], start=1):
        before, after = time_N[code_N < code], time_N[code_N >= code]
        if before.size and after.size and before.max() >= after.min():
            raise _leak_error(f"global_time: what comes before {split} reaches to {before.max()}, and {split} begins at {after.min()}")
    return 0


def _leak_error(what: str) -> StageError:
    return StageError(f"leak in the splits of ingest: {what}; nothing was written, please report it")

"""Source ids into integers: a fixed order of the ids, and dense numbers in that order."""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray


def distinct(interactions: Path, column: str) -> pl.Series:
    """The different values of a column of a scratch table, in no order. The file is streamed."""
    return pl.scan_parquet(interactions).select(pl.col(column).unique()).collect(engine="streaming")[column]


def id_order(ids: pl.Series) -> NDArray[np.uint32]:
    """What sorts the (different) ids: by number if all are plain numbers, else as text."""
    keys = [pl.col("id")]
    if ids.str.contains("^[0-9]+$").all():
        # As text, because a number may have more digits than an integer has room for: the longer is the larger.
        digits = pl.col("id").str.strip_chars_start("0")
        keys = [digits.str.len_bytes(), digits, pl.col("id")]
    return ids.to_frame("id").select(pl.arg_sort_by(keys))["id"].to_numpy()


def sorted_ids(ids: pl.Series) -> pl.Series:
    return ids.gather(id_order(ids))


def code(column: str, ids: pl.Series) -> pl.Expr:
    """The place of a text column's value in `ids`, int32; null where it is not in them. Streams, and keeps the order of rows."""
    return pl.col(column).cast(pl.Enum(ids), strict=False).to_physical().cast(pl.Int32)


def densify(codes_N: NDArray[np.int32], ids: pl.Series) -> tuple[NDArray[np.int32], pl.Series]:
    """Codes (places in `ids`) renumbered without gaps in the order of the ids that occur, and those ids."""
    used = np.flatnonzero(np.bincount(codes_N, minlength=len(ids)))
    used_ids = ids.gather(used)
    order = id_order(used_ids)
    # -1 for ids that do not occur, so that a code among them would stand out instead of meaning the first id.
    new_code = np.full(len(ids), -1, dtype=np.int32)
    new_code[used[order]] = np.arange(len(used), dtype=np.int32)
    return new_code[codes_N], used_ids.gather(order)

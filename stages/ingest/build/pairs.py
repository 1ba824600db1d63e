"""The log as integers, in the order in which each user took things, and each pair of user and item once.

A log of more than ROWS_AT_ONCE rows is sorted in parts, each of some users whole: the order is by user first, so the parts put below each
other are the sorted log. Of the whole log there are then 16 bytes a row in memory, of a part about 60.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.ingest.build.ids import code, distinct, sorted_ids
from stages.ingest.readers.raw import RawLog

CODES = {"user": pl.Int32, "item": pl.Int32, "timestamp": pl.Int64}
ROWS_AT_ONCE = 25_000_000


@dataclass(frozen=True)
class Pairs:
    """table: CODES by user, time and row, the earliest of each pair. user_ids: by code. low_rated, duplicates: rows that are not in it."""

    table: pl.DataFrame
    user_ids: pl.Series
    low_rated: int
    duplicates: int


def read_pairs(raw: RawLog, known_items: pl.Series, min_rating: float) -> Pairs:
    if raw.interaction_rows > ROWS_AT_ONCE:
        return _in_parts(raw, known_items, min_rating)
    table, user_ids, low_rated = read_codes(raw, known_items, min_rating)
    first = _first(table, len(known_items))
    return Pairs(first, user_ids, low_rated, table.height - first.height)


def _in_parts(raw: RawLog, known_items: pl.Series, min_rating: float) -> Pairs:
    """The same, a part of the users at a time, from a table of codes on disk beside the log's scratch table."""
    coded, usable, user_ids = _coded(raw, known_items, min_rating)
    path = raw.interactions.with_name("codes.parquet")
    coded.sink_parquet(path, compression="lz4")
    on_disk = pl.scan_parquet(path)
    counts = on_disk.group_by("user").len().collect(engine="streaming")
    rows_U = np.zeros(len(user_ids), dtype=np.int64)
    rows_U[counts["user"].to_numpy()] = counts["len"].to_numpy()
    total = int(rows_U.sum())
    # Filled from the front; what duplicates leave empty at the end takes no memory, for it is never touched.
    columns = {name: np.empty(total, dtype=np.int32 if dtype == pl.Int32 else np.int64) for name, dtype in CODES.items()}
    filled = 0
    for low, high in pairwise(bounds(rows_U, math.ceil(total / ROWS_AT_ONCE))):
        rows = on_disk.filter(pl.col("user").is_between(low, high, closed="left")).collect(engine="streaming")
        part = _first(_sorted(rows), len(known_items))
        del rows
        for name, column in columns.items():
            column[filled : filled + part.height] = part[name].to_numpy()
        filled += part.height
    path.unlink()
    # One by one, each array gone before the next is copied.
    table = pl.DataFrame([pl.Series(name, columns.pop(name)[:filled]) for name in CODES])
    return Pairs(table, user_ids, _low_rated(usable, total, min_rating), total - filled)


def bounds(rows_U: NDArray[np.int64], parts: int) -> list[int]:
    """User codes between which `parts` parts lie, of about as many rows each; a user is never cut. The last is the number of users."""
    ends_U = np.cumsum(rows_U)
    wanted = ends_U[-1] * np.arange(1, parts) // parts if len(ends_U) else np.arange(0)
    return [0, *(np.searchsorted(ends_U, wanted) + 1).tolist(), len(rows_U)]


def pair_keys(pairs: pl.DataFrame, items: int) -> NDArray[np.int64]:
    """One number a pair of `user` and `item`, in 64 bits: users times items soon passes 2**31."""
    key_N = pairs["user"].to_numpy().astype(np.int64)
    key_N *= items
    key_N += pairs["item"].to_numpy()
    return key_N


def _coded(raw: RawLog, known_items: pl.Series, min_rating: float) -> tuple[pl.LazyFrame, pl.LazyFrame, pl.Series]:
    """The usable rows that are rated high enough, as codes; the usable rows; the users' ids, by code."""
    item = code("item", known_items)
    usable = pl.scan_parquet(raw.interactions).filter(item.is_not_null())
    # A row without a rating cannot be rated too low: implicit feedback has none.
    is_high = pl.col("rating").is_null() | (pl.col("rating") >= min_rating)
    rated = usable.filter(is_high) if min_rating else usable  # 0: all, where ratings may be negative
    user_ids = sorted_ids(distinct(raw.interactions, "user"))
    return rated.select(code("user", user_ids), item, "timestamp", "row", "nanos"), usable, user_ids


def _low_rated(usable: pl.LazyFrame, rated: int, min_rating: float) -> int:
    return usable.select(pl.len()).collect(engine="streaming").item() - rated if min_rating else 0


def _sorted(rows: pl.DataFrame) -> pl.DataFrame:
    order = _by_user_and_time(*(rows[name].to_numpy() for name in ("user", "timestamp", "row", "nanos")))
    return pl.DataFrame({name: rows[name].to_numpy()[order] for name in CODES}, schema=CODES)


def _first(pairs: pl.DataFrame, items: int) -> pl.DataFrame:
    first = first_of_each_pair(pairs, items)
    return pairs if first.all() else pairs.filter(pl.Series(first))  # no second copy of a long log


def read_codes(raw: RawLog, known_items: pl.Series, min_rating: float) -> tuple[pl.DataFrame, pl.Series, int]:
    """CODES sorted by user, time and row; the users' ids, by code; and how many rows are rated too low."""
    coded, usable, user_ids = _coded(raw, known_items, min_rating)
    rows = coded.collect(engine="streaming")
    return _sorted(rows), user_ids, _low_rated(usable, rows.height, min_rating)


def first_of_each_pair(pairs: pl.DataFrame, items: int) -> NDArray[np.bool_]:
    """Which rows are the first of their user and item."""
    # The rows are sorted by time and the sort is stable, so the first of equal keys is the earliest.
    key_N = pair_keys(pairs, items)
    order = np.argsort(key_N, kind="stable")
    first_N = np.ones(len(key_N), dtype=bool)
    key_N = key_N[order]
    first_N[order[1:][key_N[1:] == key_N[:-1]]] = False
    return first_N


def _by_user_and_time(
    user_N: NDArray[np.int32], time_N: NDArray[np.int64], row_N: NDArray[np.int64], nanos_N: NDArray[np.int32]
) -> NDArray[np.intp]:
    """What sorts by user, then time, to the nanosecond, then row."""
    if not len(user_N):
        return np.arange(0)
    span = int(time_N.max()) - int(time_N.min()) + 1
    if (int(user_N.max()) + 1) * span < 2**63 and (row_N[1:] > row_N[:-1]).all() and not nanos_N.any():
        # In the order of the file, one stable sort of one key does it, in under half the time.
        return np.argsort(user_N * np.int64(span) + (time_N - time_N.min()), kind="stable")
    return np.lexsort((row_N, nanos_N, time_N, user_N))

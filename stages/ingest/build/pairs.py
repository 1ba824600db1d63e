"""The log as integers, in the order in which each user took things, and each pair of user and item once.

A log of more than ROWS_AT_ONCE rows is sorted in parts, each of some users whole: the order is by user first, so the parts put below each
other are the sorted log. Of the whole log there are then 16 bytes a row in memory, of a part about 60.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.ingest.build.ids import NumberCodes, TextCodes, distinct, has_numbers, sorted_ids
from stages.ingest.build.order import CodedRows, bounds, first_pairs
from stages.ingest.readers.ahead import ahead
from stages.ingest.readers.raw import RawLog
from stages.ingest.readers.scratch import TableWriter
from stages.shared.core.schemas import Schema

CODES: Schema = {"user": pl.Int32, "item": pl.Int32, "timestamp": pl.Int64}
ROWS_AT_ONCE = 25_000_000
_ORDER: Schema = {"row": pl.Int64, "nanos": pl.Int32}  # what else decides where a row stands


@dataclass(frozen=True)
class Pairs:
    """table: CODES by user, time and row, the earliest of each pair. user_ids: by code. low_rated, duplicates: rows that are not in it."""

    table: pl.DataFrame
    user_ids: pl.Series
    low_rated: int
    duplicates: int


def read_pairs(raw: RawLog, known_items: pl.Series, min_rating: float) -> Pairs:
    user_ids = sorted_ids(distinct(raw.interactions, "user"))
    read = partial(_Blocks, raw.interactions, user_ids, known_items, min_rating)
    if raw.interaction_rows > ROWS_AT_ONCE:
        blocks, columns = _in_parts(read(), raw.interactions.with_name("codes.parquet"), len(user_ids), len(known_items))
    else:
        blocks, columns = _at_once(read, raw.interaction_rows, len(known_items))
    # One by one, each array gone before the next is copied.
    table = pl.DataFrame([pl.Series(name, columns.pop(name)) for name in CODES])
    return Pairs(table, user_ids, blocks.low_rated, blocks.rows - table.height)


def pair_keys(pairs: pl.DataFrame, items: int) -> NDArray[np.int64]:
    """One number a pair of `user` and `item`, in 64 bits: users times items soon passes 2**31."""
    key_N = pairs["user"].to_numpy().astype(np.int64)
    key_N *= items
    key_N += pairs["item"].to_numpy()
    return key_N


class _Blocks:
    """The log in blocks, in the order of the file, to be gone through once: CODES and _ORDER of the rows with a usable item that are rated
    high enough. Several are in work at once.

    rows, low_rated: how many of them there were so far, and how many were rated too low. in_order: whether the rows count up and no time
    has parts of a second.
    """

    def __init__(self, interactions: Path, user_ids: pl.Series, known_items: pl.Series, min_rating: float):
        is_number = has_numbers(interactions)
        codes = NumberCodes if is_number else TextCodes
        self._users, self._items = codes(user_ids), codes(known_items)
        self._texts = [] if is_number else ["user", "item"]
        self._interactions = interactions
        self._min_rating = min_rating
        self._last_row = -1
        self.rows = self.low_rated = 0
        self.in_order = True

    def __iter__(self) -> Iterator[pl.DataFrame]:
        with pq.ParquetFile(self._interactions) as file:
            groups = file.num_row_groups
        for block, low_rated in ahead(self._coded, range(groups)):
            self.low_rated += low_rated
            if block.height:
                self.rows += block.height
                row_N, nanos_N = (block[name].to_numpy() for name in _ORDER)
                self.in_order &= bool(row_N[0] > self._last_row and (row_N[1:] > row_N[:-1]).all() and not nanos_N.any())
                self._last_row = int(row_N[-1])
                yield block

    def _coded(self, group: int) -> tuple[pl.DataFrame, int]:
        with pq.ParquetFile(self._interactions, read_dictionary=self._texts) as file:
            table = file.read_row_group(group, use_threads=False)
        rows = pl.DataFrame(pl.from_arrow(table.drop_columns(["user", "item"])))
        rows = rows.with_columns(user=pl.Series(self._users(table["user"])), item=pl.Series(self._items(table["item"])))
        if (rows["item"] < 0).any():
            rows = rows.filter(pl.col("item") >= 0)
        kept = rows
        if self._min_rating:  # 0: all, where ratings may be negative
            # A row without a rating cannot be rated too low: implicit feedback has none.
            kept = rows.filter(pl.col("rating").is_null() | (pl.col("rating") >= self._min_rating))
        return kept.select(*CODES, *_ORDER), rows.height - kept.height


Columns = dict[str, NDArray[np.integer]]


def _at_once(read: Callable[[], _Blocks], most: int, items: int) -> tuple[_Blocks, Columns]:
    """`most`: rows that there may be."""
    blocks, rows = _rows(read, most)
    first = first_pairs(rows, items)
    return blocks, dict(zip(CODES, (first.user_N, first.item_N, first.time_N), strict=True))


def _rows(read: Callable[[], _Blocks], most: int) -> tuple[_Blocks, CodedRows]:
    for schema in (CODES, {**CODES, **_ORDER}):  # as a rule the order of the file is all that there is to know
        blocks, filled = read(), 0
        # Filled from the front; what stays empty at the end takes no memory, for it is never touched.
        columns = _empty(most, schema)
        for block in blocks:
            if schema is CODES and not blocks.in_order:
                break
            for name, column in columns.items():
                column[filled : filled + block.height] = block[name].to_numpy()
            filled += block.height
        else:
            break
    return blocks, CodedRows(*(column[:filled] for column in columns.values()))  # type: ignore[arg-type]


def _in_parts(blocks: _Blocks, path: Path, users: int, items: int) -> tuple[_Blocks, Columns]:
    """The same, a part of the users at a time, from a table of codes at `path`, which is gone in the end."""
    writer = TableWriter(path, {**CODES, **_ORDER})
    rows_U = np.zeros(users, dtype=np.int64)
    spans: list[tuple[int, int]] = []  # the first and the last user of each row group
    for block in blocks:
        users_of_block, rows_of_each = np.unique(block["user"].to_numpy(), return_counts=True)
        rows_U[users_of_block] += rows_of_each
        spans.append((int(users_of_block[0]), int(users_of_block[-1])))
        writer.write(block)
    writer.close()
    columns = _empty(blocks.rows, CODES)
    filled = 0
    for low, high in pairwise(bounds(rows_U, math.ceil(blocks.rows / ROWS_AT_ONCE))):
        groups = [group for group, (first, last) in enumerate(spans) if first < high and last >= low]
        part = first_pairs(_part(path, groups, low, high, int(rows_U[low:high].sum()), blocks.in_order), items)
        parts: list[NDArray[Any]] = [part.user_N, part.item_N, part.time_N]
        for column, part_N in zip(columns.values(), parts, strict=True):
            column[filled : filled + len(part)] = part_N
        filled += len(part)
    path.unlink()
    return blocks, {name: column[:filled] for name, column in columns.items()}


def _part(path: Path, groups: list[int], low: int, high: int, rows: int, in_order: bool) -> CodedRows:
    """The rows of the users from `low` to below `high`, all of which stand in these row groups."""
    columns = _empty(rows, CODES if in_order else {**CODES, **_ORDER})

    def read(group: int) -> pl.DataFrame:
        with pq.ParquetFile(path) as file:
            block = pl.DataFrame(pl.from_arrow(file.read_row_group(group, columns=list(columns), use_threads=False)))
        return block.filter(pl.col("user").is_between(low, high, closed="left"))

    filled = 0
    for block in ahead(read, groups):
        for name, column in columns.items():
            column[filled : filled + block.height] = block[name].to_numpy()
        filled += block.height
    return CodedRows(*columns.values())  # type: ignore[arg-type]


def _empty(rows: int, schema: Schema) -> Columns:
    return {name: np.empty(rows, dtype=np.int32 if dtype == pl.Int32 else np.int64) for name, dtype in schema.items()}

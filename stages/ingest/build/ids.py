"""Source ids into integers: a fixed order of the ids, and dense numbers in that order."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

AT_ONCE = 2**20  # rows of a log: what is made of them stays in the processor's cache
_DENSE = 2**24  # numbers below it are looked up in a table


def distinct(interactions: Path, column: str) -> pl.Series:
    """The different ids in a column of a scratch table, as text, in no order. The file is streamed."""
    if has_numbers(interactions) and (small := _small_numbers(interactions, column)) is not None:
        return pl.Series(column, small).cast(pl.String)
    return pl.scan_parquet(interactions).select(pl.col(column).unique()).collect(engine="streaming")[column].cast(pl.String)


def has_numbers(interactions: Path) -> bool:
    """Whether the ids of a scratch table are numbers (RAW_NUMBERS)."""
    return pl.read_parquet_schema(interactions)["user"] == pl.Int64


def _small_numbers(interactions: Path, column: str) -> NDArray[np.intp] | None:
    """The different numbers of a column, by a mark in a table for each; None where there are others than those below _DENSE."""
    is_there_V = np.zeros(_DENSE, dtype=bool)
    with pq.ParquetFile(interactions) as file:
        for batch in file.iter_batches(AT_ONCE, columns=[column], use_threads=False):
            numbers_N = batch.column(0).to_numpy()
            if len(numbers_N) and (numbers_N.min() < 0 or numbers_N.max() >= _DENSE):
                return None
            is_there_V[numbers_N] = True
    return np.flatnonzero(is_there_V)


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


def counts(codes_N: NDArray[np.integer[Any]], size: int = 0) -> NDArray[np.int64]:
    """As np.bincount with `size` entries at least, which would first copy the codes of a long log into 64 bits."""
    counts_I = np.zeros(max(size, int(codes_N.max(initial=-1)) + 1), dtype=np.int64)
    step = max(AT_ONCE, len(counts_I))
    for start in range(0, len(codes_N), step):
        counts_I += np.bincount(codes_N[start : start + step], minlength=len(counts_I))
    return counts_I


class TextCodes:
    """The place in `ids` of a text; -1 where it is not in them."""

    def __init__(self, ids: pl.Series):
        self._dtype = pl.Enum(ids)

    def __call__(self, texts: pa.ChunkedArray) -> NDArray[np.int32]:
        """texts: dictionaries and places in them, as Parquet has texts that repeat: each text is looked up once a block."""
        codes = [self._of(chunk.dictionary)[chunk.indices.to_numpy()] for chunk in texts.chunks]
        return np.concatenate(codes) if codes else np.empty(0, np.int32)

    def _of(self, texts: pa.Array) -> NDArray[np.int32]:
        codes = pl.Series(pl.from_arrow(texts)).cast(pl.String).cast(self._dtype, strict=False).to_physical()
        return codes.cast(pl.Int32).fill_null(-1).to_numpy()


class NumberCodes:
    """The place in `ids` of an id that is a number; -1 where it is not in them."""

    def __init__(self, ids: pl.Series):
        numbers = ids.cast(pl.Int64, strict=False)
        places = (numbers.cast(pl.String) == ids).fill_null(False).arg_true()  # 007 is no number of the log's
        numbers_I = numbers.gather(places).to_numpy()
        order = np.argsort(numbers_I)
        self._sorted_I = numbers_I[order]
        self._codes_I = places.to_numpy()[order].astype(np.int32)
        self._table_V: NDArray[np.int32] | None = None
        if len(order) and self._sorted_I[0] >= 0 and self._sorted_I[-1] < max(_DENSE, 8 * len(order)):
            self._table_V = np.full(self._sorted_I[-1] + 1, -1, dtype=np.int32)
            self._table_V[self._sorted_I] = self._codes_I

    def __call__(self, numbers: pa.ChunkedArray) -> NDArray[np.int32]:
        return self.of(numbers.to_numpy())

    def of(self, numbers_N: NDArray[np.int64]) -> NDArray[np.int32]:
        if not len(self._sorted_I):
            return np.full(len(numbers_N), -1, dtype=np.int32)
        if self._table_V is None:
            place_N = np.minimum(np.searchsorted(self._sorted_I, numbers_N), len(self._sorted_I) - 1)
            return np.where(self._sorted_I[place_N] == numbers_N, self._codes_I[place_N], np.int32(-1))
        if len(numbers_N) and (numbers_N.min() < 0 or numbers_N.max() >= len(self._table_V)):
            in_table = (numbers_N >= 0) & (numbers_N < len(self._table_V))
            return np.where(in_table, self._table_V[np.where(in_table, numbers_N, 0)], np.int32(-1))
        return self._table_V[numbers_N]


def densify(codes_N: NDArray[np.int32], ids: pl.Series) -> tuple[NDArray[np.int32], pl.Series]:
    """Codes (places in `ids`) renumbered without gaps in the order of the ids that occur, and those ids."""
    used = np.flatnonzero(counts(codes_N, len(ids)))
    used_ids = ids.gather(used)
    order = id_order(used_ids)
    if len(used) == len(ids) and (order[1:] > order[:-1]).all():
        return codes_N, ids  # as most often: no second copy of a long log
    # -1 for ids that do not occur, so that a code among them would stand out instead of meaning the first id.
    new_code = np.full(len(ids), -1, dtype=np.int32)
    new_code[used[order]] = np.arange(len(used), dtype=np.int32)
    return new_code[codes_N], used_ids.gather(order)

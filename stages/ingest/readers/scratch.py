"""Scratch tables on disk: written in row groups, read once or twice, and deleted."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from stages.ingest.readers.raw import RAW_INTERACTIONS, RAW_NUMBERS
from stages.shared.core.schemas import Schema

_IDS = ("user", "item")
_LOOKED_AT = 100  # rows, before all of a block are


class TableWriter:
    """A Parquet file written in row groups, each while the caller reads on: pyarrow writes on one core."""

    def __init__(self, path: Path, schema: Schema):
        self.path = path
        self.schema = schema
        self.arrow = pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        # Whole numbers by their differences: rows count up, and so do users in most logs. Texts and ratings repeat.
        whole = [name for name, dtype in schema.items() if dtype in (pl.Int64, pl.Int32)]
        repeating = [name for name, dtype in schema.items() if dtype in (pl.String, pl.Float32)]
        # No statistics: these tables are read once and deleted.
        self.writer = pq.ParquetWriter(
            path,
            self.arrow,
            compression="zstd",
            use_dictionary=repeating,
            column_encoding=dict.fromkeys(whole, "DELTA_BINARY_PACKED"),
            write_statistics=False,
        )
        self._pool = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def write(self, table: pl.DataFrame) -> None:
        """The columns of the schema out of `table`; a null text is written as an empty one, `rating` may be null."""
        columns = [pl.col(name).cast(dtype) for name, dtype in self.schema.items()]
        table = table.select(columns).with_columns(pl.col(pl.String).fill_null(""))
        if table.height:
            self._wait()  # one at a time: no more than one group waits in memory
            self._writing = self._pool.submit(self.writer.write_table, table.to_arrow(compat_level=pl.CompatLevel.oldest()))

    def close(self) -> None:
        self._wait()
        self._pool.shutdown()
        self.writer.close()

    def _wait(self) -> None:
        """Until the group before is written; its error, as of a full disk, is raised here."""
        if self._writing:
            self._writing.result()


class LogWriter:
    """The table of interactions: RAW_NUMBERS as long as all ids are whole numbers as printed, from the first other on RAW_INTERACTIONS."""

    def __init__(self, path: Path):
        self.path = path
        self._table: TableWriter | None = None

    def write(self, rows: pl.DataFrame) -> None:
        """Checked rows, ids as text or as numbers."""
        if rows.is_empty():
            return
        if self._table is None or self._table.schema is RAW_NUMBERS:
            if (numbers := _as_numbers(rows)) is not None:
                self._table = self._table or TableWriter(self.path, RAW_NUMBERS)
                self._table.write(numbers)
                return
            self._begin_text()
        assert self._table
        self._table.write(rows)

    def close(self) -> None:
        (self._table or TableWriter(self.path, RAW_INTERACTIONS)).close()

    def _begin_text(self) -> None:
        """A table of texts, what was written as numbers before in front."""
        before, self._table = self._table, None
        if before is None:
            self._table = TableWriter(self.path, RAW_INTERACTIONS)
            return
        before.close()
        numbers = self.path.with_name("numbers.parquet")
        self.path.rename(numbers)
        self._table = TableWriter(self.path, RAW_INTERACTIONS)
        with pq.ParquetFile(numbers) as file:
            for group in range(file.num_row_groups):
                self._table.write(pl.DataFrame(pl.from_arrow(file.read_row_group(group))))
        numbers.unlink()


def _as_numbers(rows: pl.DataFrame) -> pl.DataFrame | None:
    """`rows` with the ids as numbers; None where one of them is not a whole number as printed."""
    if all(rows.schema[name] == pl.Int64 for name in _IDS):
        return rows
    if rows.height > _LOOKED_AT and _as_numbers(rows.head(_LOOKED_AT)) is None:
        return None
    numbers = rows.with_columns(pl.col(_IDS).cast(pl.Int64, strict=False))
    same = [numbers[name].cast(pl.String).eq_missing(rows[name]).all() for name in _IDS]
    return numbers if all(same) else None

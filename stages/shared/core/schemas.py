"""Parquet tables whose schemas are declared here once and checked on write and on read."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import polars as pl

from stages.shared.core.errors import StageError

Schema = dict[str, pl.DataType | type[pl.DataType]]
T = TypeVar("T")

# One row an interaction, sorted by user, then time. `position` counts from 0 within the user.
# `split`: base (retriever and statistics), train (training slates: teacher, sft, rl), valid, test; in that order along each user.
INTERACTIONS: Schema = {"user": pl.Int32, "item": pl.Int32, "position": pl.Int32, "timestamp": pl.Int64, "split": pl.String}
# Dense ids from 0; `text` is what gets embedded; `year` is null where unknown.
ITEMS: Schema = {
    "item": pl.Int32,
    "source_id": pl.String,
    "title": pl.String,
    "brand": pl.String,
    "categories": pl.List(pl.String),
    "year": pl.Int32,
    "text": pl.String,
}
USERS: Schema = {"user": pl.Int32, "source_id": pl.String}
# One code per level, and the SID as the language model writes it.
SIDS: Schema = {"item": pl.Int32, "codes": pl.List(pl.Int32), "sid": pl.String}
# From SIDs back to items, sorted by codes: every SID ever given. `item` is null where the source item left the catalogue.
SID_MAP: Schema = {"sid": pl.String, "codes": pl.List(pl.Int32), "item": pl.Int32, "source_id": pl.String}
# One row a (user, position): K candidates in initial ranking. `target_rank` counts from 0, -1 = the retriever missed it.
# `history`: the items before the position, oldest first, at most the cap of retrieve.
# `fold`: the model of that fold, which never saw the user, ranked the slate; -1 = the model of all users' training part.
# `provenance`: "", or for training slates only "injected" (the target was put in) or "permuted" (the target is noise, a control).
# `hard`: initial ranks of the hard negatives that were put in.
SLATES: Schema = {
    "slate": pl.Int32,
    "user": pl.Int32,
    "position": pl.Int32,
    "timestamp": pl.Int64,
    "split": pl.String,
    "history": pl.List(pl.Int32),
    "candidates": pl.List(pl.Int32),
    "scores": pl.List(pl.Float32),
    "target": pl.Int32,
    "target_rank": pl.Int32,
    "fold": pl.Int32,
    "provenance": pl.String,
    "hard": pl.List(pl.Int32),
}
# Of logged slates (retrieve.model: given): `grades`, by initial rank what each candidate was worth to the user, 0 = not taken, several may
# be above 0; `propensities`, the chance that the user looked at it where it stood, null where nobody says. `target`: the first one taken.
LOGGED_SLATES: Schema = SLATES | {"grades": pl.List(pl.Int32), "propensities": pl.List(pl.Float32)}


def write_table(table: pl.DataFrame, path: Path, schema: Schema, may_be_empty: bool = False) -> None:
    """Writes `table` after checking it against `schema` (columns, order, types)."""
    _check(table, path, schema, may_be_empty)
    table.write_parquet(path, compression="zstd", statistics=False)


def read_table(path: Path, schema: Schema, may_be_empty: bool = False) -> pl.DataFrame:
    """The table at `path`; StageError names the file and the column that is missing or of another type."""
    table = _readable(path, lambda: pl.read_parquet(path, glob=False))
    _check(table, path, schema, may_be_empty)
    return table


def read_slate_table(path: Path) -> pl.DataFrame:
    """SLATES, or LOGGED_SLATES where the slates were logged; StageError as of read_table."""
    return read_table(path, LOGGED_SLATES if "grades" in read_columns(path) else SLATES)


def read_columns(path: Path) -> list[str]:
    """The names of the columns of the table at `path`; StageError where it cannot be read."""
    return list(_readable(path, lambda: pl.read_parquet_schema(path)))


def _readable(path: Path, read: Callable[[], T]) -> T:
    if not path.exists():
        raise StageError(f"{path}: no such file; run the stage that makes it: gr2 run {path.parent.name}")
    try:
        return read()
    except Exception as error:  # polars raises many kinds on a damaged file; all mean the same to the reader
        raise StageError(f"{path}: not a readable Parquet file ({error}); rerun: gr2 run {path.parent.name}") from None


def _check(table: pl.DataFrame, path: Path, schema: Schema, may_be_empty: bool) -> None:
    for name, dtype in schema.items():
        if name not in table.columns:
            raise StageError(f"{path}: the column '{name}' is missing (found: {', '.join(table.columns)})")
        if table.schema[name] != dtype:
            raise StageError(f"{path}: the column '{name}' is {table.schema[name]}, expected {dtype}")
    extra = [name for name in table.columns if name not in schema]
    if extra:
        raise StageError(f"{path}: unexpected columns {', '.join(extra)}")
    if table.is_empty() and not may_be_empty:
        raise StageError(f"{path}: the table has no rows")

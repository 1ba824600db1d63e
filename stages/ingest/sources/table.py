"""A log of one's own: Parquet, CSV, TSV or JSON lines, with the names of the columns in ingest.table.

Items are in a file of their own, or in the log itself (`items: ""`, or its name), whose first row of an item with a title then counts.
Either may be a pattern: its files are parts of one table.

Where cells hold several items (item_separator), the `row` of one is PLACES * line + its place in the cell, from 1.
"""

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from stages.ingest.params import TableParams
from stages.ingest.readers.chunks import Input
from stages.ingest.readers.delimited import Columns, read_delimited
from stages.ingest.readers.jsonlines import (
    INTERACTION_FIELDS,
    ITEM_FIELDS,
    Record,
    field,
    optional,
    read_json_lines,
    required,
    text,
    texts,
    value_of,
)
from stages.ingest.readers.parquet import missing_column, read_parquet
from stages.ingest.readers.raw import RawFile, called_by_id
from stages.ingest.readers.times import with_times
from stages.ingest.readers.validate import StagingTables, TimeUnit
from stages.ingest.readers.written_lists import category_lists
from stages.ingest.sources.parts import Take, read_parts, shown_name
from stages.shared.core.errors import StageError
from stages.shared.core.schemas import Schema
from stages.shared.sources.encoding import unpacked
from stages.shared.sources.first_bytes import is_parquet
from stages.shared.sources.flags import NO, YES
from stages.shared.sources.nested import flat, has_path
from stages.shared.sources.written_lists import BRACKETED, written_list

_JSON = (".jsonl", ".ndjson", ".json")
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_ENDINGS = (".parquet", *_SEPARATORS, *_JSON)
_HINT = "name it in ingest.table"
_BETWEEN = "\x1f"  # ASCII's unit separator: between the items of a list that is no text
PLACES = 10_000


def read_interactions(folder: Path, table: TableParams, scratch: StagingTables) -> RawFile:
    names = {"user": table.user, "item": table.item, "timestamp": table.timestamp, "rating": table.rating}
    numbering = PositionCounter() if not table.timestamp else None
    shown = shown_name(table.interactions)

    def take(rows: pl.DataFrame) -> None:
        rows = _spread(_with_numbers(rows, table), "item", table)
        if numbering:
            rows = numbering.number(rows)
        elif table.time_format:
            rows = with_times(rows, table.time_format)
        scratch.add_interactions(shown, rows, table.time_unit if table.timestamp else "s")

    def values(record: Record) -> tuple[Any, ...]:
        rating = optional(record, table.rating) if table.rating else None
        time = required(record, table.timestamp) if table.timestamp else None
        return required(record, table.user), _ids(record, table.item, table), time, rating

    # Of these alone a cell says the same as a number and as text.
    numbers_in = table.time_unit if table.timestamp and not (table.time_format or table.item_separator) else None
    read = partial(_read, table=table, names=names, values=values, fields=INTERACTION_FIELDS, ids="item", numbers_in=numbers_in)
    return read_parts(folder, table.interactions, read, take)


def _ids(record: Record, name: str, table: TableParams) -> str:
    """An id, or where a cell may hold several all of them, between _BETWEEN."""
    value = value_of(record, name)
    if table.item_separator and (value is None or isinstance(value, list)):
        return _BETWEEN.join(map(text, value or []))
    return required(record, name)


def _with_numbers(rows: pl.DataFrame, table: TableParams) -> pl.DataFrame:
    """Numbers that are text with a point where a comma stands; a rating of true is 1, of false 0."""
    numbers = ("rating",) if table.time_format else ("rating", "timestamp")
    texts = [name for name in numbers if rows.schema[name] == pl.String and table.decimal == ","]
    rows = rows.with_columns(pl.col(name).str.replace(",", ".", literal=True) for name in texts)
    if rows.schema["rating"] != pl.String or not rows["rating"].str.contains("[A-Za-z]").any():
        return rows
    word = pl.col("rating").str.strip_chars().str.to_lowercase()
    return rows.with_columns(
        pl.when(word.is_in(YES)).then(pl.lit("1")).when(word.is_in(NO)).then(pl.lit("0")).otherwise("rating").alias("rating")
    )


def _spread(rows: pl.DataFrame, column: str, table: TableParams) -> pl.DataFrame:
    """A row an item, where a cell may hold several; an empty cell holds none, which is no fault of its row."""
    if not table.item_separator:
        return rows
    rows = rows.with_columns(pl.col(column).fill_null("").str.strip_chars())
    written = {cell: ids for cell in rows[column].filter(rows[column].str.contains(BRACKETED)).unique() if (ids := _ids_of_written(cell))}
    cut = pl.col(column).str.replace_all(table.item_separator, _BETWEEN, literal=True)
    cells = pl.when(pl.col(column).is_in(list(written))).then(pl.col(column).replace(written)).otherwise(cut).str.split(_BETWEEN)
    rows = rows.with_columns(cells.list.eval(pl.element().filter(pl.element().str.strip_chars() != "")).alias(column))
    rows = rows.with_columns(place=pl.int_ranges(1, pl.col(column).list.len() + 1)).explode(column, "place")
    rows = rows.filter(pl.col(column).is_not_null() | pl.col("reason").is_not_null())
    return rows.with_columns(row=pl.col("row") * PLACES + pl.col("place").fill_null(0)).drop("place")


def _ids_of_written(cell: str) -> str | None:
    """Of a cell with a list as JSON, Python or numpy writes it; None where it is none. Of an empty one _BETWEEN: no id."""
    ids = written_list(cell)
    return _BETWEEN.join(map(text, ids)) or _BETWEEN if isinstance(ids, list) else None


def read_items(folder: Path, table: TableParams, scratch: StagingTables) -> RawFile:
    """Of the file of items, or of the log where `table` names no other."""
    file = table.items or table.interactions
    item_id, shown = (table.item_id if table.items else table.item), f"{'items of ' if table.in_log else ''}{shown_name(file)}"
    names = {"source_id": item_id, "title": table.title, "year": table.year, "brand": table.brand, "categories": table.categories}

    def take(rows: pl.DataFrame) -> None:
        rows = _spread(rows, "source_id", table)
        if not table.title:
            rows = rows.with_columns(title=called_by_id("source_id"))
        if table.in_log:
            # Bad rows of the log are counted as such already; an item may have a title in one row and none in another.
            usable = pl.col("reason").is_null() & pl.all_horizontal(pl.col("source_id", "title").str.strip_chars() != "")
            rows = rows.filter(usable).unique("source_id", keep="first", maintain_order=True)
        # A text is cut at the separator; a list, of Parquet or JSON, is one already.
        if rows.schema["categories"] == pl.String:
            rows = category_lists(rows, table.category_separator)
        category = pl.element().str.strip_chars()
        rows = rows.with_columns(pl.col("categories").list.eval(category.filter(category.str.len_bytes() > 0)))
        scratch.add_items(shown, rows)

    def values(record: Record) -> tuple[Any, ...]:
        categories = value_of(record, table.categories) if table.categories else None
        if isinstance(categories, str):
            listed = written_list(categories)
            categories = categories.split(table.category_separator) if listed is None else listed
        return (
            _ids(record, item_id, table),
            *(field(record, name) for name in (table.title, table.year, table.brand)),
            texts(categories),
        )

    read = partial(_read, table=table, names=names, values=values, fields=ITEM_FIELDS, ids="source_id")
    return replace(read_parts(folder, file, read, take), name=shown)


def _read(
    path: Path,
    take: Take,
    table: TableParams,
    names: dict[str, str],
    values: Callable[[Record], tuple[Any, ...]],
    fields: Schema,
    ids: str,
    numbers_in: TimeUnit | None = None,
) -> RawFile:
    """`names`: our column -> that of the file, "" = none. `values` does the same for a JSON record. `ids`: ours that may hold several."""
    ending = _ending(path.name)
    if ending not in _ENDINGS and not table.separator:
        ending = form_of(path)
    if ending == ".parquet":
        return read_parquet(path, names, take, {ids: _BETWEEN} if table.item_separator else {})
    if ending in _JSON:
        return _read_jsonl(path, names, values, fields, take)
    if separator := table.separator or separator_of(path.name):
        columns = Columns(
            {name: (column,) if column else () for name, column in names.items()}, [name for name in names if not names[name]], _HINT
        )
        return read_delimited(Input(path), separator, columns, take, table.encoding, is_quoted(separator), numbers_in)
    raise StageError(
        f"{path}: ends in none of {', '.join(_ENDINGS)} (or these with .gz); convert the file, or name its ingest.table.separator"
    )


def form_of(path: Path) -> str:
    """The ending that would say what a file holds whose own does not (Spark's parts may have none): by its first bytes, or empty."""
    if not path.is_file():
        return ""
    if is_parquet(path):
        return ".parquet"
    with path.open("rb") as file:
        try:
            return ".jsonl" if unpacked(file).read(64).lstrip()[:1] == b"{" else ""
        except (OSError, EOFError, zlib.error):
            return ""


def _ending(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


def separator_of(name: str) -> str:
    """What the ending of a file says; empty where it says nothing."""
    return _SEPARATORS.get(_ending(name), "")


def is_quoted(separator: str) -> bool:
    """Whether a quote may hold the separator; in tab-separated text it is a character like any other."""
    return separator != "\t" and len(separator) == 1


def _read_jsonl(path: Path, names: dict[str, str], values: Callable[[Record], tuple[Any, ...]], fields: Schema, take: Take) -> RawFile:
    missing = {name for name in names.values() if name}
    present: set[str] = set()

    def values_noting_names(record: Record) -> tuple[Any, ...]:
        if missing:
            missing.difference_update([name for name in missing if has_path(record, name)])
            present.update([path for path, _ in flat(record)][:50])
        return values(record)

    # Only at the end: a key that every record lacks is a wrong name in ingest.table, one that some lack is a gap in the data.
    file = read_json_lines(Input(path), fields, values_noting_names, take)
    if missing:
        raise missing_column(path.name, sorted(missing)[0], sorted(present))
    return file


class PositionCounter:
    """Numbers the interactions of each user in the order of the file, across blocks."""

    def __init__(self) -> None:
        self.so_far = pl.DataFrame(schema={"user": pl.String, "so_far": pl.Int64})

    def number(self, rows: pl.DataFrame) -> pl.DataFrame:
        # As validation will strip them: "a" and "a " are one user, and must share a count.
        rows = rows.with_columns(pl.col("user").fill_null("").str.strip_chars())
        rows = rows.join(self.so_far, on="user", how="left", maintain_order="left")
        place = pl.col("so_far").fill_null(0) + pl.int_range(pl.len(), dtype=pl.Int64).over("user")
        counts = rows.group_by("user").agg(so_far=pl.len().cast(pl.Int64))
        self.so_far = pl.concat([self.so_far, counts]).group_by("user").agg(pl.col("so_far").sum())
        return rows.with_columns(timestamp=place).drop("so_far")

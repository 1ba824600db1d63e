"""The plain pair: sequences.txt (`user item item ...` a line, oldest first, ids from 1) and items.jsonl.

There are no times: the timestamp is the place in the sequence, from 0. The `row` of an interaction is
1,000,000 * line + place in the line, from 1: unique, in the order of the file, and it says where to look. A whole line has place 0.
"""

import polars as pl

from stages.ingest.readers.chunks import Input
from stages.ingest.readers.jsonlines import ITEM_FIELDS, Record, field, read_json_lines, required, texts
from stages.ingest.readers.lines import read_lines
from stages.ingest.readers.raw import RawFile
from stages.ingest.readers.validate import StagingTables, first_fault

PLACES = 1_000_000
_ID = r"^[1-9][0-9]*$"


def read_sequences(source: Input, scratch: StagingTables) -> RawFile:
    earlier_users = pl.Series("user", [], pl.String)

    def take(table: pl.DataFrame) -> None:
        nonlocal earlier_users
        table = table.select("row", "reason", text="line", ids=pl.col("line").str.extract_all(r"\S+"))
        table = table.with_columns(pl.col("ids").list.first().alias("user"), pl.col("ids").list.slice(1))
        # Within the block, and against all blocks before it.
        is_repeated = ~pl.col("user").is_first_distinct() | pl.col("user").is_in(earlier_users.implode())
        faults = {
            "user id is not a whole number from 1": ~pl.col("user").str.contains(_ID),
            "no items behind the user": pl.col("ids").list.len() == 0,
            f"more than {PLACES - 1} items": pl.col("ids").list.len() >= PLACES,
            "user stands twice": is_repeated,
        }
        table = table.with_columns(first_fault(faults))
        earlier_users = pl.concat([earlier_users, table.filter(pl.col("reason").is_null())["user"]])
        scratch.add_interactions(source.name, _interactions(table))

    return read_lines(source, take)


def read_items(source: Input, scratch: StagingTables) -> RawFile:
    """item_id, title; brand (or null) and categories, of whose paths the first, where it has them."""

    def values(record: Record) -> tuple[str | list[str], ...]:
        return required(record, "item_id"), field(record, "title"), "", field(record, "brand"), texts(record.get("categories"))

    return read_json_lines(source, ITEM_FIELDS, values, lambda table: scratch.add_items(source.name, table))


def _interactions(lines: pl.DataFrame) -> pl.DataFrame:
    """One row an item of a good line, one row a bad line."""
    # A bad line is one rejected row, however many items it lists.
    bad = lines.filter(pl.col("reason").is_not_null()).with_columns(item=pl.lit(None, pl.String), timestamp=pl.lit(0, pl.Int64), place=0)
    good = lines.filter(pl.col("reason").is_null()).with_columns(timestamp=pl.int_ranges(pl.col("ids").list.len()))
    good = good.explode("ids", "timestamp").rename({"ids": "item"}).with_columns(place=pl.col("timestamp") + 1)
    wrong = pl.when(~pl.col("item").str.contains(_ID)).then(pl.lit("item id is not a whole number from 1"))
    table = pl.concat([good.with_columns(reason=wrong), bad.select(good.columns)], how="vertical_relaxed")
    return table.with_columns(pl.col("row") * PLACES + pl.col("place"), rating=pl.lit(None, pl.Float32)).drop("place").sort("row")

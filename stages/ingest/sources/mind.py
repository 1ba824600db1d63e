"""MIND (Wu et al. 2020, https://msnews.github.io): behaviors.tsv and news.tsv of one unpacked archive, in their official layout.

behaviors.tsv: stages/shared/sources/mind.py (as slates: stages/retrieve/given/mind.py). What a user took is the history, whose clicks have
no times, and then what was clicked in the impressions, at the time of each. The history stands in every row of its user; its items are put
a second apart before the user's first impression, so that they are in order and earlier.

news.tsv, without a header: id, category, subcategory, title, abstract, URL, entities of the title, entities of the abstract.

The `row` of an interaction is 10,000 * line + place in the line, from 1; a whole line has place 0.
"""

from pathlib import Path

import polars as pl

from stages.ingest.readers.chunks import Input
from stages.ingest.readers.lines import read_lines
from stages.ingest.readers.raw import RawFile
from stages.ingest.readers.validate import StagingTables, first_fault
from stages.shared.sources.mind import CLICKED, LOG, LOG_COLUMNS, TIME

ITEMS = "news.tsv"
PLACES = 10_000
_ITEM_COLUMNS = 8
_CLICKED = rf"^(.+)-{CLICKED}$"


def has_files(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (LOG, ITEMS))


def read_behaviors(source: Input, scratch: StagingTables) -> RawFile:
    def take(table: pl.DataFrame) -> None:
        cells = pl.col("line").str.split("\t")
        table = table.with_columns(
            pl.when(cells.list.len() == LOG_COLUMNS).then(cells).alias("cells"), pl.col("row") * PLACES, text=pl.col("line")
        )
        user, time, history, shown = (pl.col("cells").list.get(place, null_on_oob=True) for place in (1, 2, 3, 4))
        table = table.with_columns(
            user=user,
            timestamp=time.str.strip_chars().str.to_datetime(TIME, strict=False).dt.epoch("s"),
            history=history.str.extract_all(r"\S+"),
            clicked=shown.str.extract_all(r"\S+").list.eval(pl.element().str.extract(_CLICKED)).list.drop_nulls(),
        )
        faults = {
            f"not {LOG_COLUMNS} columns": pl.col("cells").is_null(),
            f"time is not like {TIME}": pl.col("timestamp").is_null(),
        }
        scratch.add_interactions(source.name, _interactions(table.with_columns(first_fault(faults))))

    return read_lines(source, take)


def _interactions(table: pl.DataFrame) -> pl.DataFrame:
    """One row an item of the history or a click, one row a bad line."""
    bad = table.filter(pl.col("reason").is_not_null())
    # The history stands in every row of a user: the first row by time has all of it.
    good = table.filter(pl.col("reason").is_null()).sort("timestamp", maintain_order=True)
    first = good.filter(pl.col("user").is_first_distinct())
    count = pl.col("history").list.len().cast(pl.Int64)
    before = first.with_columns(
        item="history", timestamp=pl.int_ranges(pl.col("timestamp") - count, pl.col("timestamp")), place=pl.int_ranges(1, count + 1)
    ).explode("item", "timestamp", "place")
    after = good.with_columns(item="clicked", place=pl.int_ranges(1, pl.col("clicked").list.len() + 1) + count).explode("item", "place")
    columns = ["row", "reason", "text", "user", "item", "timestamp"]
    parts = [part.drop_nulls("item").with_columns(row=pl.col("row") + pl.col("place")).select(columns) for part in (before, after)]
    empty = bad.with_columns(item=pl.lit(None, pl.String)).select(columns)
    return pl.concat([*parts, empty]).with_columns(rating=pl.lit(None, pl.Float32)).sort("row", maintain_order=True)


def read_news(source: Input, scratch: StagingTables) -> RawFile:
    def take(table: pl.DataFrame) -> None:
        cells = pl.col("line").str.split("\t")
        item, category, subcategory, title = (cells.list.get(place, null_on_oob=True).str.strip_chars() for place in range(4))
        categories = pl.concat_list(category, subcategory).list.eval(pl.element().filter(pl.element() != ""))
        scratch.add_items(
            source.name,
            table.with_columns(
                first_fault({f"not {_ITEM_COLUMNS} columns": cells.list.len() != _ITEM_COLUMNS}),
                text=pl.col("line"),
                source_id=item,
                title=title,
                categories=categories,
                year=pl.lit(""),
                brand=pl.lit(""),
            ),
        )

    return read_lines(source, take)

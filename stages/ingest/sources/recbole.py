"""RecBole's atomic files: tab-separated, UTF-8, with a header of `name:type`."""

from pathlib import Path

import polars as pl

from stages.ingest.readers.chunks import Input
from stages.ingest.readers.delimited import Columns, read_delimited
from stages.ingest.readers.raw import RawFile
from stages.ingest.readers.validate import StagingTables
from stages.shared.core.errors import StageError

_HINT = "the first row must name the columns, as in user_id:token"


def read_inter(source: Input, scratch: StagingTables) -> RawFile:
    """A `.inter` file: user_id, item_id, timestamp, and rating where it has one."""
    # The names that RecBole's own data sets use; others are renamed in the file, or read as source: table.
    names = {"user": ("user_id",), "item": ("item_id",), "timestamp": ("timestamp",), "rating": ("rating",)}
    columns = Columns(names, ["rating"], _HINT, typed=True)
    return read_delimited(source, "\t", columns, lambda table: scratch.add_interactions(source.name, table))


def read_item(source: Input, scratch: StagingTables) -> RawFile:
    """A `.item` file: item_id and title; year, categories (separated by spaces) and brand where it has them."""
    names = {
        "source_id": ("item_id",),
        "title": ("movie_title", "title"),
        "year": ("release_year", "year"),
        "brand": ("brand",),
        "categories": ("class", "genre", "categories"),
    }

    def take(table: pl.DataFrame) -> None:
        scratch.add_items(source.name, table.with_columns(pl.col("categories").fill_null("").str.extract_all(r"\S+")))

    return read_delimited(source, "\t", Columns(names, ["year", "brand", "categories"], _HINT, typed=True), take)


def has_files(folder: Path) -> bool:
    """Whether one of the two stands in `folder`; u.item belongs to MovieLens-100K."""
    return any([*folder.glob("*.inter"), *(path for path in folder.glob("*.item") if path.name != "u.item")])


def find(folder: Path) -> tuple[Input, Input]:
    """The `.inter` and the `.item` file of `folder`: StageError unless there is exactly one of each."""
    return _only(folder, "*.inter"), _only(folder, "*.item")


def _only(folder: Path, pattern: str) -> Input:
    paths = sorted(folder.glob(pattern))
    if len(paths) != 1:
        names = ", ".join(path.name for path in paths) or "none"
        raise StageError(f"{folder}: exactly one {pattern} file is needed, found {names}; add it or leave only the one to use")
    return Input(paths[0])

"""What reading a source leaves behind: three scratch tables and the facts about the files, the same for every source."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import polars as pl

from stages.shared.core.hashes import file_sha256
from stages.shared.core.schemas import Schema
from stages.shared.sources.encoding import UTF8

# Rows in the order of the file. `row` counts lines (or records) from 1, names a row in errors and breaks ties between equal times.
# `timestamp`: seconds since 1970, or the place in the user's sequence where the source has no times. `rating`: null where unknown.
# `nanos`: of the second, which `timestamp` cuts off; it only orders what a user took within one second.
RAW_INTERACTIONS: Schema = {
    "user": pl.String,
    "item": pl.String,
    "timestamp": pl.Int64,
    "rating": pl.Float32,
    "row": pl.Int64,
    "nanos": pl.Int32,
}
# The same where every id is a whole number written as usual (7, not 007): a fraction of the time and the memory.
RAW_NUMBERS: Schema = {**RAW_INTERACTIONS, "user": pl.Int64, "item": pl.Int64}
# As the source writes it, no cleaning yet; `year` is the text of its field, "" where it has none.
RAW_ITEMS: Schema = {
    "source_id": pl.String,
    "title": pl.String,
    "year": pl.String,
    "brand": pl.String,
    "categories": pl.List(pl.String),
    "row": pl.Int64,
}
# A row that could not be used: `reason` is a short phrase from a fixed list, `text` the beginning of the row, up to TEXT_SHOWN characters.
TEXT_SHOWN = 200
NO_TITLE = "no title"
PAGE_SOURCE = "title is the source of a web page"
REJECTED: Schema = {"file": pl.String, "row": pl.Int64, "reason": pl.String, "text": pl.String}


def called_by_id(column: str) -> pl.Expr:
    """The title of an item that has none."""
    return pl.format("Item {}", pl.col(column).str.strip_chars())


@dataclass(frozen=True)
class RawFile:
    """A file that was read. `name` has no folder, so that a metric does not depend on where it lies. `encoding`: of its text."""

    name: str
    sha256: str
    size: int  # bytes
    encoding: str = UTF8
    parts: "tuple[RawFile, ...]" = ()  # of a file in parts, whose sha256 is that of the list of theirs as sha256sum writes it

    @classmethod
    def of(cls, path: Path) -> Self:
        """Of a file that is not read as a stream, which would hash it on the way."""
        return cls(path.name, file_sha256(path), path.stat().st_size)


@dataclass(frozen=True)
class RawLog:
    """A source after parsing. The three paths are Parquet files in a scratch folder that the caller removes."""

    name: str  # for people: "MovieLens-100K (recbole-1.2.1-py3-none-any.whl)"
    licence: str  # one sentence for the data card
    files: list[RawFile]
    interactions: Path  # RAW_NUMBERS where they hold all ids, else RAW_INTERACTIONS
    items: Path  # RAW_ITEMS
    rejected: Path  # REJECTED
    interaction_rows: int  # rows of the log, good and bad
    item_rows: int
    time: Literal["seconds", "order"]  # "order": no times in the source, `timestamp` is the place in the user's sequence
    category_word: str  # how the embedding text calls categories: "Genres" or "Categories"
    forgotten: dict[str, int] = field(default_factory=dict)  # forget.py; no rows of theirs are in any of the above

    def log(self) -> pl.LazyFrame:
        """RAW_INTERACTIONS, whatever the file holds."""
        return pl.scan_parquet(self.interactions).with_columns(pl.col("user", "item").cast(pl.String))

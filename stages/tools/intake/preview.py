"""What ingest makes of a folder: read whole by ingest's own readers, counted, and its first rows as they are understood."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.ingest.build.items import usable_items
from stages.ingest.build.quarantine import Counts, files, quarantine
from stages.ingest.params import IngestParams
from stages.ingest.readers.raw import RawLog
from stages.ingest.sources.source import read_source
from stages.retrieve.params import RetrieveParams
from stages.shared.core.errors import StageError
from stages.tools.intake.lists.preview import ListPreview, read_lists

ROWS = 5
_WIDTH = 32  # characters of a value
_ENOUGH = 20  # interactions of a user, for the default split by positions
_LEAST = 5  # for leave-one-out, as the papers cut Amazon's logs


@dataclass(frozen=True)
class Preview:
    """`rows`: the first ones, as texts by column. `lengths`: different items per user."""

    source: str
    rows: list[dict[str, str]]
    log_rows: int
    rejected: Counts
    items: int
    lengths: NDArray[np.int64]
    has_times: bool
    first: str
    last: str
    lists: ListPreview | None = None

    def sizes(self) -> dict[str, Any]:
        return {
            "log_rows": self.log_rows,
            "rejected": self.rejected,
            "users": len(self.lengths),
            "items": self.items,
            "interactions": int(self.lengths.sum()),
            "median_per_user": float(np.median(self.lengths)) if len(self.lengths) else 0.0,
            "first": self.first,
            "last": self.last,
        }


def read_whole(params: IngestParams, scratch: Path, lists: RetrieveParams | None = None) -> Preview:
    """lists: how logged lists are read, where there are any. StageError where a file cannot be read, or too many of its rows cannot be used
    (ingest.max_bad_share)."""
    scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=scratch, prefix="init-") as folder:
        raw = read_source(params, Path(folder))
        usable, untitled = usable_items(raw, params.missing_items)
        if params.missing_items == "refuse":
            require_items(raw, usable["source_id"], params.max_bad_share)
        rejected = quarantine(raw, usable, untitled, params.max_bad_share, Path(folder) / "quarantine.parquet", params.missing_items)
        log = raw.log().filter(pl.col("rating").is_null() | (pl.col("rating") >= params.min_rating))
        pairs = log.select("user", "item").filter(pl.col("item").is_in(usable["source_id"].implode())).unique()
        lengths = pairs.group_by("user").len().collect(engine="streaming")["len"].to_numpy().astype(np.int64)
        head = log.head(ROWS).collect()
        span = log.select(pl.col("timestamp").min().alias("first"), pl.col("timestamp").max().alias("last")).collect().row(0)
        has_times = raw.time == "seconds"
        items = usable.select("source_id", "title", "year", "brand", "categories")
        joined = head.join(items, left_on="item", right_on="source_id", how="left", maintain_order="left")
        known = set(usable["source_id"]) if lists else set[str]()
        shown = read_lists(lists, log.select("user", "timestamp"), known) if lists else None
        first, last = (_moment(moment) if has_times else "" for moment in span)
    rows = [_row(row, has_times) for row in joined.iter_rows(named=True)]
    return Preview(raw.name, rows, raw.interaction_rows, rejected, usable.height, lengths, has_times, first, last, shown)


class MissingItems(StageError):
    """Too many rows of the log have an item without a title; what to do with them is to be said (ingest.missing_items)."""


def require_items(raw: RawLog, known: pl.Series, max_bad_share: float) -> None:
    unknown = raw.log().filter(~pl.col("item").is_in(known.implode()))
    rows, items, example = unknown.select(pl.len(), pl.col("item").n_unique(), pl.col("item").first().alias("one")).collect().row(0)
    if rows > max_bad_share * raw.interaction_rows:
        log, catalogue = files(raw)
        raise MissingItems(
            f"{rows:,} of {raw.interaction_rows:,} rows of {log} have one of {items:,} items that {catalogue} lacks or gives no title, as "
            f"{example!r}: id calls them by their ids, drop leaves these rows out"
        )


def split_keys(lengths: NDArray[np.int64]) -> tuple[dict[str, Any], str]:
    """Keys of `ingest` for histories of these lengths, and why: the default's where half of those with 5 have 20."""
    enough, least = int((lengths >= _ENOUGH).sum()), int((lengths >= _LEAST).sum())
    counts = f"of {len(lengths):,} users {least:,} have {_LEAST} interactions or more, {enough:,} have {_ENOUGH}"
    if enough and 2 * enough >= least:
        # Said, because the profile smoke has another, which suits longer histories alone.
        return {"base_share": IngestParams().base_share}, f"{counts}: the default split fits (the last eight of each user are the test)"
    keys = {"min_interactions": _LEAST, "split": "leave_one_out", "base_share": 0.6, "min_base": 2}
    return keys, f"{counts}: too few for the default split, so the last one of each user is the test"


def _row(row: dict[str, Any], has_times: bool) -> dict[str, str]:
    return {
        "user": row["user"],
        "item": row["item"],
        "time (UTC)" if has_times else "place": _moment(row["timestamp"]) if has_times else str(row["timestamp"]),
        "rating": "" if row["rating"] is None else f"{row['rating']:g}",
        "title": row["title"] or "(not in the items)",
        "year": row["year"] or "",
        "brand": row["brand"] or "",
        "categories": ", ".join(row["categories"] or []),
    }


def _moment(seconds: int | None) -> str:
    return "" if seconds is None else str(np.datetime64(seconds, "s")).replace("T", " ")


def table_lines(rows: list[dict[str, str]]) -> list[str]:
    """Columns in which nothing stands are left out."""
    names = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    # isprintable: a value may hold what a terminal would obey.
    cells = [names, *([_cut("".join(c if c.isprintable() else "?" for c in row[name])) for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(names))]
    return ["  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"

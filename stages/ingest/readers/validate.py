"""Checks rows as they are read and writes them: the good ones, and with a reason those that cannot be used.

A parsed block has the columns of its table (raw.py), numbers still as text where the file is text, and two more:
`reason` (null, or why the row was not even parsed) and `text` (the row as it stands).
"""

from functools import reduce
from operator import or_
from pathlib import Path
from typing import Literal

import polars as pl

from stages.ingest.readers.forget import Forgotten
from stages.ingest.readers.page_source import PATTERN
from stages.ingest.readers.raw import NO_TITLE, PAGE_SOURCE, RAW_ITEMS, REJECTED, TEXT_SHOWN, RawFile, RawLog
from stages.ingest.readers.scratch import LogWriter, TableWriter
from stages.shared.core.errors import StageError
from stages.shared.core.schemas import Schema

TimeUnit = Literal["s", "ms", "us", "ns"]
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_LIMIT = 2**35  # seconds: beyond it stand milliseconds taken for seconds
_PLAUSIBLE = (315_532_800, 4_102_444_800)  # 1980 to 2100, in seconds: a number in these bounds counts seconds, whatever unit is declared
_ITEM_SCRATCH: Schema = {**RAW_ITEMS, "text": pl.String}


class StagingTables:
    """The three tables of a RawLog in the making, without the rows of the `forgotten`."""

    def __init__(self, folder: Path, forgotten: Forgotten | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.forgotten = forgotten or Forgotten()
        self.interaction_rows = 0
        self.item_rows = 0
        self._interactions = LogWriter(folder / "interactions.parquet")
        self._items = TableWriter(folder / "items.all.parquet", _ITEM_SCRATCH)
        self._rejected = TableWriter(folder / "rejected.parquet", REJECTED)
        self._item_file = ""

    def add_interactions(self, file: str, parsed: pl.DataFrame, unit: TimeUnit = "s") -> None:
        """`parsed`: a block as above, or one of numbers.py, which is checked already."""
        checked = self.forgotten.without(file, parsed)
        self.interaction_rows += checked.height
        if "reason" in checked.columns:
            checked = self._without_rejected(file, check_interactions(checked, unit))
        self._interactions.write(checked)

    def add_items(self, file: str, parsed: pl.DataFrame) -> None:
        checked = check_items(parsed)
        self.item_rows += checked.height
        self._item_file = file
        self._items.write(self._without_rejected(file, checked))

    def finish(
        self,
        name: str,
        licence: str,
        files: list[RawFile],
        category_word: str,
        time: Literal["seconds", "order"] = "seconds",
        same_again: bool = False,
        first_counts: bool = False,
    ) -> RawLog:
        """`same_again`: an item that stands twice with the same fields is no bad row, the second is only skipped; with `first_counts`
        neither is one with other fields."""
        self._interactions.close()
        self._items.close()
        self._keep_first_items(same_again, first_counts)
        self._rejected.close()
        return RawLog(
            name,
            licence,
            files,
            self._interactions.path,
            self.folder / "items.parquet",
            self._rejected.path,
            self.interaction_rows,
            self.item_rows,
            time,
            category_word,
            self.forgotten.counts(),
        )

    def _without_rejected(self, file: str, checked: pl.DataFrame) -> pl.DataFrame:
        bad = checked.filter(pl.col("reason").is_not_null())
        if bad.is_empty():
            return checked
        self._rejected.write(bad.with_columns(pl.col("text").str.head(TEXT_SHOWN), file=pl.lit(file)))
        return checked.filter(pl.col("reason").is_null())

    def _keep_first_items(self, same_again: bool, first_counts: bool) -> None:
        """Over the whole file at once, on disk: an item may return in a later block."""
        all_items = pl.scan_parquet(self._items.path)
        # A hash of the content, not the content: the whole catalogue's texts need not fit into memory.
        content_hash = pl.struct("title", "year", "brand", "categories").hash(seed=0)
        items = all_items.select("source_id", "row", content=content_hash).collect(engine="streaming")
        items = items.with_columns(first=pl.col("content").first().over("source_id")).filter(~pl.col("source_id").is_first_distinct())
        repeats = all_items.filter(pl.col("row").is_in(items["row"].implode()))
        different = items.filter((pl.col("content") != pl.col("first")) & (not first_counts)) if same_again else items
        rejected = repeats.filter(pl.col("row").is_in(different["row"].implode())).collect().sort("row")
        self._rejected.write(rejected.with_columns(file=pl.lit(self._item_file), reason=pl.lit("item stands twice")))
        kept = all_items.filter(~pl.col("row").is_in(items["row"].implode())) if items.height else all_items
        kept.select(list(RAW_ITEMS)).sink_parquet(self.folder / "items.parquet")
        self._items.path.unlink()


def check_interactions(parsed: pl.DataFrame, unit: TimeUnit = "s") -> pl.DataFrame:
    """`parsed` with trimmed ids, `timestamp` in whole seconds, `rating` as a number, and a reason where one of them will not do."""
    parsed = parsed.with_columns(
        pl.col("user").str.strip_chars(),
        pl.col("item").str.strip_chars(),
        *[pl.col(name).str.strip_chars() for name in ("timestamp", "rating") if parsed.schema[name] == pl.String],
    )
    if parsed.schema["rating"] == pl.String:
        parsed = parsed.with_columns(pl.when(pl.col("rating") != "").then("rating"))
    seconds = seconds_of(parsed["timestamp"], unit)
    number = parsed["rating"].cast(pl.Float32, strict=False)
    table = parsed.with_columns(seconds=seconds[0], is_number=seconds[1], number=number, nanos=seconds[2])
    faults = {
        "empty user id": pl.col("user").fill_null("") == "",
        "empty item id": pl.col("item").fill_null("") == "",
        "timestamp is not a number": ~pl.col("is_number"),
        f"timestamp is not in {_UNIT_NAMES[unit]} since 1970": pl.col("seconds").is_null(),
        "rating is not a number": pl.col("rating").is_not_null() & ~pl.col("number").is_finite().fill_null(False),
    }
    return table.with_columns(first_fault(faults), timestamp=pl.col("seconds"), rating=pl.col("number")).drop(
        "seconds", "is_number", "number"
    )


def check_items(parsed: pl.DataFrame) -> pl.DataFrame:
    """`parsed` with trimmed ids and a reason where the id or the title is missing."""
    # As in the log, or an id with a space behind it would be an item that nobody took.
    parsed = parsed.with_columns(pl.col("source_id").str.strip_chars())
    faults = {
        "empty item id": pl.col("source_id").fill_null("") == "",
        NO_TITLE: pl.col("title").fill_null("").str.strip_chars() == "",
        PAGE_SOURCE: pl.col("title").str.contains(PATTERN),
    }
    return parsed.with_columns(first_fault(faults))


def first_fault(faults: dict[str, pl.Expr]) -> pl.Expr:
    """Column `reason`: the first that holds, unless the row had a reason before."""
    return pl.coalesce("reason", *[pl.when(holds).then(pl.lit(reason)) for reason, holds in faults.items()]).alias("reason")


def seconds_of(times: pl.Series, unit: TimeUnit) -> tuple[pl.Series, pl.Series, pl.Series]:
    """Whole seconds (null where out of bounds, or in another unit), whether a number stood there, and the rest in nanoseconds."""
    if times.dtype.is_temporal():
        # Nanoseconds only where the file has them: in 64 bits they reach no further than the year 2262.
        unit = "ns" if getattr(times.dtype, "time_unit", "") == "ns" else "us"
        times = times.cast(pl.Datetime(unit)).dt.timestamp(unit)
        declared = False
    else:
        declared = True
    per_second = _PER_SECOND[unit]
    whole, billionths = _exact(times)
    seconds = whole // per_second if per_second > 1 else whole
    nanos = (whole % per_second) * (10**9 // per_second) if per_second > 1 else whole * 0
    if billionths is not None:
        nanos = nanos + billionths // per_second
    is_number = whole.is_not_null()
    if not is_number.all():
        real = times.cast(pl.Float64, strict=False)
        real = real.set(~real.is_finite().fill_null(False), None)
        is_exact, is_number = is_number, is_number | real.is_not_null()
        floor = (real / per_second).floor()
        whole = whole.zip_with(is_exact, real.floor().cast(pl.Int64, strict=False))
        seconds = seconds.zip_with(is_exact, floor.cast(pl.Int64, strict=False))
        nanos = nanos.zip_with(is_exact, ((real / per_second - floor) * 10**9).cast(pl.Int64, strict=False))
    bad = ~((seconds > -_LIMIT) & (seconds < _LIMIT)).fill_null(False)
    if declared and unit != "s":
        bad |= _is_coarser(whole, unit)
    return seconds.set(bad, None) if bad.any() else seconds, is_number, nanos.fill_null(0).cast(pl.Int32)


def _exact(times: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    """Whole units, rounded down (null where `times` are floats, or text that is no plain number), and billionths of a unit, if any.

    A float does not hold nanoseconds since 1970, nor microseconds of a time in seconds; integers and digits behind a point do.
    """
    if times.dtype.is_float():
        return pl.Series([None] * len(times), dtype=pl.Int64), None
    whole = times.cast(pl.Int64, strict=False)
    if times.dtype != pl.String or whole.is_not_null().all():
        return whole, None
    parts = times.str.extract_groups(r"^([+-]?\d+)\.(\d+)$").struct.unnest()
    before, behind = parts["1"].cast(pl.Int64, strict=False), parts["2"].str.head(9).str.pad_end(9, "0").cast(pl.Int64, strict=False)
    is_below = parts["1"].str.starts_with("-") & (behind > 0)  # -0.25 is -1 and 0.75
    before, behind = before - is_below.cast(pl.Int64), behind.zip_with(~is_below, 10**9 - behind)
    return whole.zip_with(whole.is_not_null(), before), behind.fill_null(0)


def _is_coarser(whole: pl.Series, unit: TimeUnit) -> pl.Series:
    """Whether the numbers make a date of our time in a coarser unit than the declared one: read in that, all would be of January 1970."""
    low, high = _PLAUSIBLE
    coarser = [factor for factor in _PER_SECOND.values() if factor < _PER_SECOND[unit]]
    hits = [((whole >= low * factor) & (whole <= high * factor)).fill_null(False) for factor in coarser]
    return reduce(or_, hits)


class NothingRead(StageError):
    """A file without a row."""


def nothing_read(name: str) -> NothingRead:
    return NothingRead(f"{name}: no rows; the file is empty or cut short, fetch it again")

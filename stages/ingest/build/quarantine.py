"""Rows that cannot be used: kept in a table of their own, and too many of them fail the stage."""

import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from stages.ingest.build.ids import code, distinct, has_numbers
from stages.ingest.build.items import NOTHING_LEFT
from stages.ingest.readers.raw import NO_TITLE, PAGE_SOURCE, REJECTED, TEXT_SHOWN, RawLog
from stages.shared.core.errors import StageError
from stages.shared.core.progress import note

UNKNOWN_ITEM = "item is not in the item file, or has no title there"
# Official metadata list many products without a title that nobody took; one that somebody took counts in the log, by UNKNOWN_ITEM.
HARMLESS = (NO_TITLE, PAGE_SOURCE, NOTHING_LEFT)
FULL_LIST = Path(".gr2/quarantine/ingest.parquet")  # of a stage that failed: such a stage publishes nothing
ROWS_SHOWN = 5

Counts = dict[str, dict[str, int]]  # file -> reason -> rows


class TooManyBadRows(StageError):
    """More of a file's rows cannot be used than ingest.max_bad_share allows."""


def quarantine(
    raw: RawLog, items: pl.DataFrame, untitled: pl.DataFrame, max_bad_share: float, path: Path, missing: str = "refuse"
) -> Counts:
    """Writes every rejected row to `path` (REJECTED; no rows where all are good). Fails if a file has too many of them, not
    counting HARMLESS.

    items, untitled: as usable_items gives them. missing: ingest.missing_items; with "drop" UNKNOWN_ITEM does not count either.
    """
    rejected = pl.concat(
        [
            pl.scan_parquet(raw.rejected).select(list(REJECTED)),
            _rejected(untitled.lazy(), files(raw)[1], NOTHING_LEFT),
            _rejected(_unknown_items(raw, items["source_id"]), files(raw)[0], UNKNOWN_ITEM),
        ]
    )
    counts = _count(rejected)
    allowed = (*HARMLESS, *((UNKNOWN_ITEM,) if missing == "drop" else ()))
    gated = {file: sum(rows for reason, rows in reasons.items() if reason not in allowed) for file, reasons in counts.items()}
    if too_many := [file for file, rows in _rows(raw).items() if gated.get(file, 0) > max_bad_share * rows]:
        FULL_LIST.parent.mkdir(parents=True, exist_ok=True)
        partial = FULL_LIST.with_suffix(".partial")
        rejected.sink_parquet(partial)  # streamed: it may be as long as the log
        os.replace(partial, FULL_LIST)
        raise TooManyBadRows("\n".join(_complaint(file, counts, raw, max_bad_share) for file in too_many))
    FULL_LIST.unlink(missing_ok=True)  # of an earlier failure
    for line in _notes(rejected, counts, raw):
        note(line)
    table = rejected.sort("file", "row", "reason", "text").collect(engine="streaming")
    assert table.schema == pl.Schema(REJECTED)
    table.write_parquet(path, compression="zstd", statistics=False)
    return counts


def files(raw: RawLog) -> tuple[str, str]:
    """The names of the log and of the item file: the last two that were read (before them stands the archive they came out of, if
    any)."""
    return raw.files[-2].name, raw.files[-1].name


def _rows(raw: RawLog) -> dict[str, int]:
    """The item file first: where it is bad, the log has rows without an item because of that."""
    log, items = files(raw)
    return {items: raw.item_rows, log: raw.interaction_rows}


def _unknown_items(raw: RawLog, known: pl.Series) -> pl.LazyFrame:
    """Rows of the log whose item is in no usable row of the item file."""
    taken_ids = distinct(raw.interactions, "item")
    # The other way round: the few ids that are missing make a small Enum, the log itself is streamed once.
    unknown_ids = taken_ids.filter(~taken_ids.is_in(known.implode()))
    if unknown_ids.is_empty():  # nothing to look for in a long log
        return pl.LazyFrame(schema={"row": pl.Int64, "text": pl.String})
    shown = pl.concat_str("user", "item", "timestamp", separator="\t").str.slice(0, TEXT_SHOWN)
    log = pl.scan_parquet(raw.interactions)
    if has_numbers(raw.interactions):
        is_unknown = pl.col("item").is_in(unknown_ids.cast(pl.Int64).implode())
    else:
        is_unknown = code("item", unknown_ids).is_not_null()
    return log.filter(is_unknown).select("row", shown.alias("text"))


def _rejected(rows: pl.LazyFrame, file: str, reason: str) -> pl.LazyFrame:
    return rows.select(pl.lit(file).alias("file"), "row", pl.lit(reason).alias("reason"), "text")


def _count(rejected: pl.LazyFrame) -> Counts:
    counts: Counts = {}
    for file, reason, rows in rejected.group_by("file", "reason").len().collect(engine="streaming").sort("file", "reason").iter_rows():
        counts.setdefault(file, {})[reason] = rows
    return counts


def _notes(rejected: pl.LazyFrame, counts: Counts, raw: RawLog) -> Iterator[str]:
    """A line for each file with rows that count as bad and are too few to stop the stage: what was left out should not go unseen."""
    for file, rows in _rows(raw).items():
        reasons = {reason: count for reason, count in counts.get(file, {}).items() if reason not in HARMLESS}
        if reasons:
            bad = pl.col("reason").is_in(list(reasons)) & (pl.col("file") == file)
            row, _, text = rejected.filter(bad).bottom_k(1, by="row").select("row", "reason", "text").collect().row(0)
            why = _by_count(reasons)
            count = sum(reasons.values())
            yield f"{file}: {count:,} of {rows:,} rows are left out: {why}; the first is row {row}: {text!r} (quarantine.parquet)"


def _by_count(reasons: dict[str, int]) -> str:
    return "; ".join(f"{count:,} x {reason}" for reason, count in sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0])))


def _complaint(file: str, counts: Counts, raw: RawLog, max_bad_share: float) -> str:
    reasons, rows, item_file = counts[file], _rows(raw)[file], files(raw)[1]
    bad = sum(reasons.values())
    why = _by_count(reasons)
    first = pl.scan_parquet(FULL_LIST).filter(pl.col("file") == file).bottom_k(ROWS_SHOWN, by="row").collect().sort("row", "reason")
    # repr: the text may hold what a terminal would obey
    shown = "\n".join(f"  row {row}: {reason}: {text!r}" for _, row, reason, text in first.iter_rows())
    if UNKNOWN_ITEM in reasons and item_file in counts:
        shown += f"\nof {item_file}: {_by_count(counts[item_file])}"
    remedy = "; ingest.missing_items: id calls such items by their ids, drop leaves their rows out" if UNKNOWN_ITEM in reasons else ""
    return (
        f"{file}: {bad:,} of {rows:,} rows ({bad / rows:.2%}) cannot be used, more than ingest.max_bad_share ({max_bad_share}): {why}\n"
        f"{shown}\n"
        f"correct the rows or raise ingest.max_bad_share{remedy}; all of them: {FULL_LIST}"
    )

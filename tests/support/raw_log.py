"""A RawLog written by hand, and the part of the stage after reading run on it."""

from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import polars as pl

from stages.ingest.ingest import build
from stages.ingest.params import IngestParams
from stages.ingest.readers.raw import RAW_INTERACTIONS, RAW_ITEMS, REJECTED, RawFile, RawLog
from stages.shared.core.outputs import stage_outputs
from stages.shared.core.schemas import INTERACTIONS, USERS, read_table

LOG, ITEM = "log.inter", "things.item"


def raw_log(
    folder: Path,
    log: Sequence[tuple],
    items: Sequence[str | tuple[str, str]] | None = None,
    rejected: Sequence[tuple[str, int, str, str]] = (),
    time: str = "seconds",
    word: str = "Genres",
) -> RawLog:
    """log: (user, item, timestamp) or with a rating; rows count from 1. items: ids, or with titles; without them, every item of the log."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (user, item, timestamp, rating[0] if rating else None, row, 0) for row, (user, item, timestamp, *rating) in enumerate(log, start=1)
    ]
    given = items if items is not None else sorted({row[1] for row in log})
    titled = [(item, f"Thing {item}") if isinstance(item, str) else item for item in given]
    things = [(item, title, "", "Acme", ["Tool", "unknown"], row) for row, (item, title) in enumerate(titled, start=1)]
    tables = {"interactions": (rows, RAW_INTERACTIONS), "items": (things, RAW_ITEMS), "rejected": (list(rejected), REJECTED)}
    for name, (values, schema) in tables.items():
        pl.DataFrame(values, schema=schema, orient="row").write_parquet(folder / f"{name}.parquet")
    bad = [file for file, *_ in rejected]
    return RawLog(
        name="A log | by hand",
        licence="none",
        files=[RawFile(LOG, "ab" * 32, 1234), RawFile(ITEM, "cd" * 32, 56)],
        interactions=folder / "interactions.parquet",
        items=folder / "items.parquet",
        rejected=folder / "rejected.parquet",
        interaction_rows=len(rows) + bad.count(LOG),
        item_rows=len(things) + bad.count(ITEM),
        time=time,
        category_word=word,
    )


def run(tmp_path: Path, raw: RawLog, **params) -> Path:
    """Runs the stage from the RawLog on, in `tmp_path`; the folder of its outputs."""
    with chdir(tmp_path), stage_outputs("ingest") as outputs:
        build(raw, IngestParams(**params), outputs)
    return tmp_path / "data" / "ingest"


def by_source(out: Path) -> list[tuple[str, str, int, int, str]]:
    """The interactions with source ids: (user, item, position, timestamp, split), in the order of the table."""
    table, users = read_table(out / "interactions.parquet", INTERACTIONS), read_table(out / "users.parquet", USERS)
    names = pl.read_parquet(out / "items.parquet")["source_id"]
    table = table.with_columns(users["source_id"].gather(table["user"]).alias("user"), names.gather(table["item"]).alias("item"))
    return table.rows()


def users_of(lengths: Sequence[int]) -> list[tuple[str, str, int]]:
    """Users u0, u1, ... of so many interactions each, the k-th at time k with item k."""
    return [(f"u{user}", str(k), k) for user, length in enumerate(lengths) for k in range(length)]

"""Small tables of a log and of its items in every format, as ingest reads them; for tests over formats and values (hypothesis)."""

import gzip
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import HealthCheck, settings

from tests.support.raw_reading import Read, read, write

FEW = settings(max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
TEXT_FORMATS = ["csv", "tsv", "jsonl", "csv.gz", "jsonl.gz"]
FORMATS = [*TEXT_FORMATS, "parquet"]
SECOND = 1_500_000_000
Rows = Sequence[dict[str, Any]]


@contextmanager
def folder_of(**files: str | bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield write(Path(folder), **files)


def put(folder: Path, name: str, rows: Rows, ending: str) -> str:
    """A table of these rows as `name`.`ending`; its name. Cells of the text formats are written as they are."""
    path = folder / f"{name}.{ending}"
    columns = list(rows[0])
    if ending == "parquet":
        pl.DataFrame({column: [row[column] for row in rows] for column in columns}, strict=False).write_parquet(path)
        return path.name
    if ending.startswith("jsonl"):
        text = "\n".join(json.dumps(row, default=float) for row in rows)
    else:
        separator = "\t" if ending.startswith("tsv") else ","
        lines = [columns, *[["" if row[column] is None else str(row[column]) for column in columns] for row in rows]]
        text = "\n".join(separator.join(cell if separator == "\t" else quoted(cell) for cell in line) for line in lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if ending.endswith(".gz") else text.encode())
    return path.name


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"') else cell


def play(item: object, time: object = SECOND, user: object = "u") -> dict[str, Any]:
    return {"user": user, "item": item, "timestamp": time}


def song(item: object, **more: Any) -> dict[str, Any]:
    return {"item": item, "title": f"T{item}", **more}


def read_tables(plays: Rows, songs: Rows, ending: str, item_ending: str = "csv", **keys: Any) -> Read:
    with folder_of() as folder:
        table = {"interactions": put(folder, "plays", plays, ending), "items": put(folder, "songs", songs, item_ending), **keys}
        return read(folder, "table", table=table)

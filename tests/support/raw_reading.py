"""Reads a folder of raw files as the stage does, and gives back plain rows."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from stages.fetch.fetch import fetch
from stages.ingest.params import IngestParams
from stages.ingest.readers.raw import RAW_INTERACTIONS, RAW_ITEMS, REJECTED, RawLog
from stages.ingest.sources.source import read_source
from stages.shared.core.outputs import Outputs
from stages.shared.sources.params import FetchParams


@dataclass
class Read:
    log: RawLog
    interactions: list[tuple[Any, ...]]  # user, item, timestamp, rating, row
    items: list[tuple[Any, ...]]  # source_id, title, year, brand, categories, row
    rejected: list[tuple[Any, ...]]  # file, row, reason, text

    @property
    def tables(self) -> tuple[list[tuple[Any, ...]], ...]:
        return self.interactions, self.items, sorted(self.rejected)


def read(folder: Path | None = None, source: str = "folder", **section: Any) -> Read:
    """Without `folder`, the source is fetched first."""
    with tempfile.TemporaryDirectory() as raw, tempfile.TemporaryDirectory() as scratch:
        if folder is None:
            fetch(FetchParams.model_validate({"source": source, **section}), Outputs("fetch", Path(raw)))
        folder = folder or Path(raw) / ".fetch.partial" / "raw"
        log = read_source(IngestParams(source=source, folder=str(folder), **section), Path(scratch))
        tables = []
        scans = (log.log(), RAW_INTERACTIONS), (pl.scan_parquet(log.items), RAW_ITEMS), (pl.scan_parquet(log.rejected), REJECTED)
        for scan, schema in scans:
            table = scan.collect()
            assert dict(table.schema) == schema
            tables.append(table.drop("nanos", strict=False).rows())
        assert {path.name for path in Path(scratch).iterdir()} == {"interactions.parquet", "items.parquet", "rejected.parquet"}
    return Read(log, *tables)


def write(folder: Path, **files: str | bytes) -> Path:
    """Files by name, with `__` for the dot."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder

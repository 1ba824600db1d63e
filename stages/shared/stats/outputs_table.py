"""The answers of an evaluation already made, read from its outputs.parquet."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from stages.shared.core.errors import StageError


def read_outputs(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """These columns of the table at `path`."""
    if not path.exists():
        raise StageError(f"{path}: no such file; run the stage that makes it: gr2 run evaluate")
    try:
        missing = [name for name in columns if name not in pl.read_parquet_schema(path)]
        table = pl.read_parquet(path, glob=False, columns=[name for name in columns if name not in missing])
    except Exception as error:  # polars raises many kinds on a damaged file; all mean the same to the reader
        raise StageError(f"{path}: not a readable Parquet file ({error}); rerun: gr2 run evaluate") from None
    if missing:
        raise StageError(f"{path}: without the column '{missing[0]}'; rerun: gr2 run evaluate")
    return table


def answers_of(table: pl.DataFrame, path: Path, model: str) -> pl.DataFrame:
    """The rows of `model`, one a slate, by slate."""
    own = table.filter(pl.col("model") == model).sort("slate")
    if own.is_empty():
        names = table["model"].unique(maintain_order=True).to_list()
        raise StageError(f"{path}: no answers of the model '{model}' (it has: {', '.join(names)})")
    if own["slate"].n_unique() != own.height:
        raise StageError(f"{path}: the model '{model}' answers the slate {own['slate'].mode().sort().item(0)} more than once")
    return own

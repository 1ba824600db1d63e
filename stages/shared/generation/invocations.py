"""What a stage asked of a language model, and what it said: invocations.parquet, for `gr2 show`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from stages.shared.core.schemas import Schema, write_table

# seconds: of the request; of an engine that answers many at once, the share of one of them. finish: stop, length, or the fault.
INVOCATIONS: Schema = {
    "slate": pl.Int32,
    "model": pl.String,
    "kind": pl.String,
    "sample": pl.Int32,
    "engine": pl.String,
    "prompt": pl.String,
    "completion": pl.String,
    "prompt_tokens": pl.Int32,
    "completion_tokens": pl.Int32,
    "seconds": pl.Float64,
    "finish": pl.String,
}


@dataclass(frozen=True)
class Invocation:
    """A row; see INVOCATIONS."""

    slate: int
    model: str
    kind: str
    sample: int
    engine: str
    prompt: str
    completion: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    finish: str


class Invocations:
    """Not `kept`: nothing is, and the table is written empty, for dvc.yaml names it. It holds times, so two runs differ in it."""

    def __init__(self, kept: bool):
        self.kept = kept
        self.rows: list[Invocation] = []

    def add(self, rows: Sequence[Invocation]) -> None:
        if self.kept:
            self.rows += rows

    def sort(self, models: Sequence[str]) -> None:
        """By model in this order: they may have answered side by side. Within a model as it was asked."""
        self.rows.sort(key=lambda row: models.index(row.model))

    def write(self, path: Path) -> None:
        write_table(pl.DataFrame([asdict(row) for row in self.rows], schema=INVOCATIONS), path, INVOCATIONS, may_be_empty=True)

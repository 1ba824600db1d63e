"""The table of teacher traces: what `traces` writes and `sft` learns from."""

from pathlib import Path

import polars as pl

from stages.shared.core.outputs import DATA
from stages.shared.core.schemas import Schema, read_columns, read_table
from stages.shared.slates.layouts.marks import THINK_END

# One row a kept trace, by time, then slate, then attempt. `trace` goes between <think> and </think>, `answer` ends with the end token.
# `shown`: the initial ranks in the order in which the prompt shows the candidates; everything else about candidates counts by that order:
# `relevances` (empty where a language model did not write one for each), `order` (best first) and `target_rank`.
TRACES: Schema = {
    "slate": pl.Int32,
    "user": pl.Int32,
    "timestamp": pl.Int64,
    "shown": pl.List(pl.Int32),
    "prompt": pl.String,
    "trace": pl.String,
    "answer": pl.String,
    "relevances": pl.List(pl.Int32),
    "order": pl.List(pl.Int32),
    "target_rank": pl.Int32,
    "attempt": pl.Int32,
    "mode": pl.String,
}
# With traces.student_fit.weight: by which sft multiplies the weights of a trace's tokens.
TRACES_WITH_WEIGHTS: Schema = {**TRACES, "weight": pl.Float32}


def taught_document(
    prompt: str, trace: str, answer: str, reasoning: bool, weights: tuple[float, float] = (1.0, 1.0)
) -> list[tuple[str, float]]:
    """Segments with their weights in the loss (lm/encoding.py): the prompt has none. weights: of the trace, and of what follows it.

    </think> counts with the answer: in decoding the model itself must decide when to stop thinking. Without reasoning there is no trace.
    """
    said = [(trace, weights[0]), (THINK_END + answer, weights[1])] if reasoning else [(answer, weights[1])]
    return [(prompt, 0.0), *said]


def read_traces(path: Path = DATA / "traces/traces.parquet") -> pl.DataFrame:
    """With the column `weight` where the table has it; StageError as of read_table."""
    weighed = path.exists() and "weight" in read_columns(path)
    return read_table(path, TRACES_WITH_WEIGHTS if weighed else TRACES)

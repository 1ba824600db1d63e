"""data/evaluate/outputs.parquet: every answer of an evaluation. Written by `evaluate`; read by `report` and by the tools."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA
from stages.shared.core.schemas import Schema, read_table, write_table
from stages.shared.evaluation.test_set import TestSet
from stages.shared.slates.reranking.padding import padded_orders
from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.slates.slate import Slate
from stages.shared.stats.metrics import ranks_of_targets

OUTPUTS = DATA / "evaluate/outputs.parquet"
GREEDY, FREE, SHUFFLED, REPEATED, RESERVED = "greedy", "free", "shuffled", "repeated", "reserved"
KINDS = (GREEDY, FREE, SHUFFLED, REPEATED, RESERVED)

# One row a kind, model, sample and slate, in this order. All ranks are initial ranks and count from 0.
# `kind`: greedy (every ranker, every slate, under the constraint), free (without the constraint), shuffled (the candidates shown in
# another order), repeated (sampled at evaluate.repeat_temperature), reserved (the models, as greedy, on the slates of the users whom
# evaluate.promotion_users keeps for gr2 promote: no report reads them). `sample`: which shuffle or repeat, else 0.
# `order`: best first; the order in which the slate was shown where `fault` says why the answer is no permutation.
# `shown`: shuffled only, which candidate stood at each place. Token counts are null for rankers that write nothing.
SCHEMA: Schema = {
    "slate": pl.Int64,
    "user": pl.Int64,
    "position": pl.Int64,
    "model": pl.String,
    "target_rank": pl.Int64,
    "new_rank": pl.Int32,
    "order": pl.List(pl.Int64),
    "fault": pl.String,
    "text": pl.String,
    "kind": pl.String,
    "sample": pl.Int32,
    "shown": pl.List(pl.Int64),
    "reasoning_tokens": pl.Int32,
    "answer_tokens": pl.Int32,
}


def answer_rows(
    test_set: TestSet,
    rows: Sequence[int],
    kind: str,
    model: str,
    rankings: Rankings,
    sample: int = 0,
    shown_NK: NDArray[np.int_] | None = None,
) -> pl.DataFrame:
    """The answers of `model` to the slates of these rows of the test set. With `shown_NK`, rankings.orders are places in that order."""
    slates = [test_set.slates[row] for row in rows]
    targets = test_set.targets[list(rows)]
    orders = rankings.orders if shown_NK is None else np.take_along_axis(shown_NK, rankings.orders, axis=1)
    empty = [None] * len(slates)
    return pl.DataFrame(
        {
            "slate": [slate.slate for slate in slates],
            "user": test_set.users[list(rows)],
            "position": test_set.positions[list(rows)],
            "model": [model] * len(slates),
            "target_rank": targets,
            "new_rank": ranks_of_targets(orders, targets),
            "order": _trimmed(orders, slates),
            "fault": rankings.faults,
            "text": rankings.texts,
            "kind": [kind] * len(slates),
            "sample": [sample] * len(slates),
            "shown": empty if shown_NK is None else _trimmed(shown_NK, slates),
            "reasoning_tokens": rankings.reasoning_tokens or empty,
            "answer_tokens": rankings.answer_tokens or empty,
        },
        schema=SCHEMA,
    )


def _trimmed(orders: NDArray[np.int_], slates: Sequence[Slate]) -> list[list[int]]:
    """[n, K] without the places behind the end of a slate."""
    return [order[: len(slate.candidates)] for order, slate in zip(orders.tolist(), slates, strict=True)]


def write_outputs(table: pl.DataFrame, path: Path) -> None:
    write_table(table, path, SCHEMA)


def read_answers(path: Path = OUTPUTS) -> pl.DataFrame:
    """All rows, with every column of SCHEMA."""
    return read_table(path, SCHEMA)


def rankings_of(table: pl.DataFrame, width: int = 0) -> Rankings:
    """The answers of one kind, model and sample, in the order of the table's rows; in `orders` initial ranks, padded (padding.py).

    width: places of the longest slate of all, where these are some of them.
    """
    tokens = {name: table[name].to_list() for name in ("reasoning_tokens", "answer_tokens")}
    # Baselines write no text, and have no token counts.
    written = table["answer_tokens"].null_count() == 0
    return Rankings(
        padded_orders(table["order"].to_list(), width),
        table["fault"].to_list(),
        table["text"].to_list(),
        **(tokens if written else {}),
    )


def read_greedy(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """These columns of the greedy answers in the table at `path`, which an older version may have written: it held no other answers."""
    present = _columns(path)
    if missing := [name for name in columns if name not in present]:
        raise StageError(f"{path}: without the column '{missing[0]}'; rerun: gr2 run evaluate")
    if "kind" not in present:
        return _read(path, columns)
    return _read(path, [*columns, "kind"]).filter(pl.col("kind") == GREEDY).select(columns)


def read_columns(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """These columns of the Parquet table at `path`, all rows."""
    if missing := [name for name in columns if name not in _columns(path)]:
        raise StageError(f"{path}: without the column '{missing[0]}'; rerun: gr2 run evaluate")
    return _read(path, columns)


def answers_of(table: pl.DataFrame, path: Path, model: str) -> pl.DataFrame:
    """The rows of `model`, one a slate, by slate."""
    rows = table.filter(pl.col("model") == model).sort("slate")
    if rows.is_empty():
        names = table["model"].unique(maintain_order=True).to_list()
        raise StageError(f"{path}: no answers of the model '{model}' (it has: {', '.join(names)})")
    if rows["slate"].n_unique() != rows.height:
        raise StageError(f"{path}: the model '{model}' answers the slate {rows['slate'].mode().sort().item(0)} more than once")
    return rows


def _columns(path: Path) -> list[str]:
    if not path.exists():
        raise StageError(f"{path}: no such file; run the stage that makes it: gr2 run evaluate")
    try:
        return list(pl.read_parquet_schema(path))
    except Exception as error:  # polars raises many kinds on a damaged file; all mean the same to the reader
        raise _unreadable(path, error) from None


def _read(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, glob=False, columns=list(columns))
    except Exception as error:  # as in _columns: the schema may be whole and the data damaged
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> StageError:
    return StageError(f"{path}: not a readable Parquet file ({error}); rerun: gr2 run evaluate")

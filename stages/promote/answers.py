"""What champion and candidate answered to the very same slates."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.shared.core.errors import StageError
from stages.shared.evaluation.outputs_table import FREE, GREEDY, RESERVED, answers_of, read_columns
from stages.shared.stats.metrics import ranks_of_targets

OUTPUTS, SLATES = Path("data/evaluate/outputs.parquet"), Path("data/retrieve/slates.parquet")
COLUMNS = ("slate", "user", "position", "model", "target_rank", "new_rank", "order", "fault", "kind", "sample")
KEY = ["user", "position", "target_rank", "content"]  # two slates with all of these alike are the same question

Ints = NDArray[np.int_]


@dataclass(frozen=True)
class RunAnswers:
    """Of one model: its answers to the slates that decide, and those of the kind free, which have no constraint to hide behind.

    reserved: whether the slates that decide were kept from every report (evaluate.promotion_users).
    """

    path: Path
    rows: pl.DataFrame
    free: pl.DataFrame
    reserved: bool


@dataclass(frozen=True)
class Paired:
    """Row for row of the same n slates. before, after [n]: ranks of the target in the champion's and the candidate's order, from 0;
    target: its initial rank; position: how many items the user had taken; invalid, copied [n]: the candidate's answer is no permutation,
    or the initial ranking again. champion_is_model: false where the initial ranking stands in for one."""

    users: Ints
    positions: Ints
    target: Ints
    before: Ints
    after: Ints
    invalid: NDArray[np.bool_]
    copied: NDArray[np.bool_]
    invalid_users: Ints
    champion_is_model: bool
    reserved: bool


def read_answers_of(folder: Path, model: str) -> RunAnswers:
    """The answers of `model` in the project (or its parts) at `folder`."""
    path = folder / OUTPUTS
    table = read_columns(path, COLUMNS)
    reserved = table.filter(pl.col("kind") == RESERVED)
    rows = answers_of(table.filter(pl.col("kind") == GREEDY) if reserved.is_empty() else reserved, path, model)
    rows = rows.join(_contents(folder / SLATES), on="slate", how="left")
    for name in (*COLUMNS, "content"):
        if rows[name].null_count():
            raise StageError(f"{path}: {rows[name].null_count()} answers of '{model}' have no {name}; rerun: gr2 run evaluate")
    recorded = rows["new_rank"].to_numpy()
    if (ranks_of_targets(np.array(rows["order"].to_list()), rows["target_rank"].to_numpy()) != recorded).any():
        raise StageError(f"{path}: ranks of '{model}' that its own orders contradict; rerun: gr2 run evaluate")
    free = table.filter((pl.col("kind") == FREE) & (pl.col("model") == model))
    return RunAnswers(path, rows, free, not reserved.is_empty())


def pair(champion: RunAnswers | None, candidate: RunAnswers) -> Paired:
    """StageError unless both answered the same slates, all of them. champion: None for the initial ranking."""
    rows = candidate.rows
    if champion:
        _check_same(champion, candidate)
        before = champion.rows.select(*KEY, pl.col("new_rank").alias("before"))
        rows = rows.join(before, on=KEY, how="left", maintain_order="left")
    else:
        rows = rows.with_columns(pl.col("target_rank").alias("before"))
    invalid = (rows["fault"] != "").to_numpy()
    orders = np.array(rows["order"].to_list())
    free_users = candidate.free["user"] if candidate.free.height else rows["user"]
    return Paired(
        users=rows["user"].to_numpy(),
        positions=rows["position"].to_numpy(),
        target=rows["target_rank"].to_numpy(),
        before=rows["before"].to_numpy(),
        after=rows["new_rank"].to_numpy(),
        invalid=(candidate.free["fault"] != "").to_numpy() if candidate.free.height else invalid,
        # An invalid answer counts as the initial ranking, but is no copy of it.
        copied=(orders == np.arange(orders.shape[1])).all(axis=1) & ~invalid,
        invalid_users=free_users.to_numpy(),
        champion_is_model=champion is not None,
        reserved=candidate.reserved,
    )


def _check_same(champion: RunAnswers, candidate: RunAnswers) -> None:
    if champion.reserved != candidate.reserved:
        which = "candidate" if candidate.reserved else "champion"
        raise StageError(
            f"different slates: only the {which} was evaluated with evaluate.promotion_users; evaluate both with the same value"
        )
    alike = champion.rows.join(candidate.rows, on=KEY, how="semi").height
    if not alike == champion.rows.height == candidate.rows.height:
        raise StageError(
            f"different slates: the champion answered {champion.rows.height:,} and the candidate {candidate.rows.height:,}, of which "
            f"{alike:,} are the same (user, target and candidates); evaluate both on the same data and retriever"
        )


def _contents(slates: Path) -> pl.DataFrame:
    table = read_columns(slates, ("slate", "target", "candidates"))
    candidates = pl.col("candidates").cast(pl.List(pl.String)).list.join(" ")
    return table.select(pl.col("slate").cast(pl.Int64), pl.concat_str(pl.col("target"), pl.lit(":"), candidates).alias("content"))

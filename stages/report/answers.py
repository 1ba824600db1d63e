"""The answers in data/evaluate/outputs.parquet, sorted into what the diagnostics read."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from stages.report.diagnostics.position_bias import PositionBias
from stages.shared.core.errors import StageError
from stages.shared.evaluation.outputs_table import FREE, GREEDY, OUTPUTS, REPEATED, SHUFFLED, rankings_of, read_answers
from stages.shared.evaluation.rankers import PRIMARY_MODEL
from stages.shared.evaluation.test_set import TestSet
from stages.shared.slates.reranking.padding import padded_orders
from stages.shared.slates.reranking.rankings import Rankings


@dataclass
class RecordedAnswers:
    """By ranker. greedy: on all slates; free: on the first ones, without the constraint; repeated: one Rankings a repeat, on the rows
    `repeat_rows` of the test set; bias: PRIMARY_MODEL's, where slates were shuffled."""

    greedy: dict[str, Rankings]
    free: dict[str, Rankings] = field(default_factory=dict)
    repeated: dict[str, list[Rankings]] = field(default_factory=dict)
    repeat_rows: list[int] = field(default_factory=list)
    bias: PositionBias | None = None


def read_recorded_answers(test_set: TestSet, models: Collection[str]) -> RecordedAnswers:
    """StageError unless the greedy answers are to the slates of `test_set`, and those of `models` are among them."""
    table = read_answers()
    slates = [slate.slate for slate in test_set.slates]
    by_kind = {kind: table.filter(pl.col("kind") == kind) for kind in (GREEDY, FREE, SHUFFLED, REPEATED)}
    greedy = by_kind[GREEDY].partition_by("model", maintain_order=True, as_dict=True)
    # An outputs.parquet of an earlier evaluation may lack a model that the report compares.
    if missing := [name for name in models if (name,) not in greedy]:
        raise StageError(f"{OUTPUTS}: no answers of the model '{missing[0]}'; rerun: gr2 run evaluate")
    for (name,), rows in greedy.items():
        if rows["slate"].to_list() != slates:
            raise StageError(
                f"{OUTPUTS}: '{name}' answered other slates than those of data/retrieve/slates.parquet; rerun: gr2 run evaluate"
            )
    width = test_set.candidates_NK.shape[1]
    answers = RecordedAnswers({str(name): rankings_of(rows, width) for (name,), rows in greedy.items()})
    answers.free = {str(name): rankings_of(rows, width) for (name,), rows in _groups(by_kind[FREE], "model").items()}
    for (name, _), rows in _groups(by_kind[REPEATED], "model", "sample").items():
        answers.repeated.setdefault(str(name), []).append(rankings_of(rows, width))
        # The same rows for every model and repeat.
        answers.repeat_rows = [slates.index(slate) for slate in rows["slate"].to_list()]
    if by_kind[SHUFFLED].height:
        answers.bias = _position_bias(by_kind[SHUFFLED], answers.greedy[PRIMARY_MODEL], slates, width)
    return answers


def _position_bias(shuffled: pl.DataFrame, greedy: Rankings, slates: list[int], width: int) -> PositionBias:
    # All shuffles show the same slates, so the first one names the rows.
    presentations = list(_groups(shuffled, "sample").values())
    rows = [slates.index(slate) for slate in presentations[0]["slate"].to_list()]
    return PositionBias.of(
        greedy.at(rows),
        [padded_orders(presentation["shown"].to_list(), width) for presentation in presentations],
        [rankings_of(presentation, width) for presentation in presentations],
        presentations[0]["target_rank"].to_numpy(),
        presentations[0]["shown"].list.len().to_numpy().astype(np.int64),
    )


def _groups(table: pl.DataFrame, *columns: str) -> dict[tuple[object, ...], pl.DataFrame]:
    return table.partition_by(*columns, maintain_order=True, as_dict=True)

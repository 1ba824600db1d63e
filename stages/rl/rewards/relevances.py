"""What candidates are worth, from a table (rl.relevances), in place of the one target that was met, or of logged grades.

A target is one draw: of ten candidates that the user might have taken, it says which was. With the relevances p of all, such as their
probabilities, the rank reward is the expected one and free of that luck: with `promotion` it is sum_j p_j (rank before - rank after) / K,
over sum_j p_j. Who writes the table answers for what it knows: the synthetic world's own probabilities (bench/world_relevances.py) make an
experiment that tells a lack of signal from one of exploration, never a result.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from stages.rl.params import TARGETS
from stages.shared.core.errors import StageError
from stages.shared.core.schemas import Schema, read_table
from stages.shared.slates.slate import Slate

RELEVANCES: Schema = {"slate": pl.Int32, "relevances": pl.List(pl.Float64)}  # of each candidate by initial rank, 0 or more


def with_relevances(slates: Sequence[Slate], path: str) -> list[Slate]:
    """The slates with what the table says as their grades; as they are where `path` is the table of slates itself.

    A grade's gain is 2^grade - 1 (orders.py), so the grade of a relevance is log2(1 + relevance). StageError for a slate without a
    usable row: a relevance for each candidate, finite, none below 0, and that of the target above 0.
    """
    if path == TARGETS:
        return list(slates)
    rows = dict(read_table(Path(path), RELEVANCES).iter_rows())
    graded = []
    for slate in slates:
        relevances = rows.get(slate.slate)
        if relevances is None:
            raise StageError(f"{path}: no row of slate {slate.slate}; rl.relevances needs one of every training slate")
        if problem := _problem(relevances, slate):
            raise StageError(f"{path}: slate {slate.slate}: {problem}; correct the row, or set rl.relevances to {TARGETS}")
        graded.append(replace(slate, grades=tuple(math.log2(1 + relevance) for relevance in relevances)))
    return graded


def _problem(relevances: Sequence[float | None], slate: Slate) -> str:
    if len(relevances) != len(slate.candidates):
        return f"{len(relevances)} relevances for {len(slate.candidates)} candidates"
    if not all(relevance is not None and 0 <= relevance < math.inf for relevance in relevances):
        return "a relevance is no finite number of 0 or more"
    return "" if relevances[slate.target_rank] else "the target, which was taken, has relevance 0"

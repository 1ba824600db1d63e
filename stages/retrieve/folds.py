"""Which rows the retriever and the statistics of a slate learn from, so that neither has seen its target.

`cut`: all slates come after the split base, from which the model learns. One model, no fold.
`folds`: the training slates of a fold's users come from a model of the other users' base and train. Validation and test slates come
from a model of all users' base and train, which both come before them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from stages.retrieve.params import RetrieveParams
from stages.shared.core.errors import StageError
from stages.shared.core.leakage import training_interactions
from stages.shared.recsys.folds import assign_folds

FITTED_ON: dict[str, tuple[str, ...]] = {"cut": ("base",), "folds": ("base", "train")}
FULL_FIT = -1  # the fold of slates that the model of all users ranks


@dataclass(frozen=True)
class Fold:
    """Slates to be made with one model, and what that model may look at.

    positions: rows of slates.slate_positions. allowed: INTERACTIONS of every split, without the users of the fold. training: the rows of
    `allowed` that the model learns from.
    """

    number: int
    positions: pl.DataFrame
    allowed: pl.DataFrame
    training: pl.DataFrame


def all_folds(positions: pl.DataFrame, interactions: pl.DataFrame, params: RetrieveParams) -> Iterator[Fold]:
    """The folds that have slates, then the full fit on all users, which may have none."""
    fitted_on = FITTED_ON[params.cross_fit]
    if params.cross_fit == "folds":
        assigned = assign_folds(interactions["user"], params.folds, params.seed)
        train = positions.filter(pl.col("split") == "train").join(assigned, on="user", maintain_order="left")
        for fold in range(params.folds):
            positions_of_fold = train.filter(pl.col("fold") == fold).drop("fold")
            allowed = interactions.join(assigned.filter(pl.col("fold") == fold), on="user", how="anti", maintain_order="left")
            training = training_interactions(allowed, fitted_on)
            if positions_of_fold.height and training.is_empty():
                raise StageError(
                    f"data/ingest/interactions.parquet: only the users of fold {fold} have interactions to learn from; "
                    "retrieve.cross_fit folds takes more users, or set it to cut"
                )
            if positions_of_fold.height:
                yield Fold(fold, positions_of_fold, allowed, training)
        positions = positions.filter(pl.col("split") != "train")
    # Validation and test slates come last in time, so a model of all users has not seen their targets.
    training = training_interactions(interactions, fitted_on)
    if training.is_empty():
        raise StageError(f"data/ingest/interactions.parquet: nothing in {' and '.join(fitted_on)} to learn from; raise ingest.base_share")
    yield Fold(FULL_FIT, positions, interactions, training)

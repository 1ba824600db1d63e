"""Which rows the retriever and the statistics of a slate learn from, so that neither has seen its target.

`cut`: all slates stand after what was learnt from, the split base. One model, no fold.
`folds`: the training slates of a fold's users come from a model of the other users' base and train. Validation and test slates come
from a model of all users' base and train, which both stand before them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from stages.retrieve.params import RetrieveParams
from stages.shared.core.errors import StageError
from stages.shared.core.leakage import training_interactions
from stages.shared.recsys.folds import deal

FITTED_ON: dict[str, tuple[str, ...]] = {"cut": ("base",), "folds": ("base", "train")}
WHOLE = -1  # the fold of slates that the model of all users ranks


@dataclass(frozen=True)
class Part:
    """Slates to be made (rows of slates.places) with one model, and the INTERACTIONS it may look at: `allowed`, every split of them;
    `training`, the rows it learns from."""

    fold: int
    places: pl.DataFrame
    allowed: pl.DataFrame
    training: pl.DataFrame


def parts(places: pl.DataFrame, interactions: pl.DataFrame, params: RetrieveParams) -> Iterator[Part]:
    """The folds that have slates, then the part of the model of all users, which may have none."""
    fitted_on = FITTED_ON[params.cross_fit]
    if params.cross_fit == "folds":
        dealt = deal(interactions["user"], params.folds, params.seed)
        train = places.filter(pl.col("split") == "train").join(dealt, on="user", maintain_order="left")
        for fold in range(params.folds):
            own = train.filter(pl.col("fold") == fold).drop("fold")
            allowed = interactions.join(dealt.filter(pl.col("fold") == fold), on="user", how="anti", maintain_order="left")
            training = training_interactions(allowed, fitted_on)
            if own.height and training.is_empty():
                raise StageError(
                    f"data/ingest/interactions.parquet: only the users of fold {fold} have interactions to learn from; "
                    "retrieve.cross_fit folds takes more users, or set it to cut"
                )
            if own.height:
                yield Part(fold, own, allowed, training)
        places = places.filter(pl.col("split") != "train")
    training = training_interactions(interactions, fitted_on)
    if training.is_empty():
        raise StageError(f"data/ingest/interactions.parquet: nothing in {' and '.join(fitted_on)} to learn from; raise ingest.base_share")
    yield Part(WHOLE, places, interactions, training)

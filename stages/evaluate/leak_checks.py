"""The leak checks of every evaluation: a planted leak stops it, loudly."""

import polars as pl

from stages.shared.core.errors import StageError
from stages.shared.core.leakage import (
    check_candidate_features,
    check_histories,
    check_out_of_sample,
    check_targets,
    check_test_is_later,
    training_interactions,
)
from stages.shared.core.outputs import DATA, read_json
from stages.shared.recsys.folds import assign_folds


def check_leaks(slates: pl.DataFrame, feature_table: pl.DataFrame, interactions: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Every check fails the stage; the counts are for metrics.json."""
    fitted_on, dealt = retriever(interactions)
    return {
        "test_is_later": check_test_is_later(slates, interactions),
        "histories": check_histories(slates, interactions),
        "targets": check_targets(slates, interactions),
        "out_of_sample": check_out_of_sample(slates, training_interactions(interactions, fitted_on), "the retriever", dealt),
        "candidate_features": check_candidate_features(feature_table, interactions, fitted_on),
    }


def retriever(interactions: pl.DataFrame) -> tuple[tuple[str, ...], pl.DataFrame | None]:
    """The splits that data/retrieve learnt from, and with folds which user was dealt to which."""
    path = DATA / "retrieve/metrics.json"
    told = read_json(path)
    try:
        fitted_on, cross_fit = tuple(told["fitted_on"]), told["cross_fit"]
        dealt = assign_folds(interactions["user"], told["folds"]["number"], told["folds"]["seed"]) if cross_fit == "folds" else None
    except KeyError as missing:
        raise StageError(f"{path}: {missing} is missing, so nobody can say what the retriever saw; rerun: gr2 run retrieve") from None
    return fitted_on, dealt

"""The leak checks of every evaluation: a planted leak stops it, loudly."""

import polars as pl

from stages.shared.core.errors import StageError
from stages.shared.core.leakage import (
    check_candidate_features,
    check_grades,
    check_histories,
    check_out_of_sample,
    check_targets,
    check_test_is_later,
    training_interactions,
)
from stages.shared.core.outputs import DATA, read_json
from stages.shared.evaluation.test_set import fitted_on
from stages.shared.recsys.folds import assign_folds


def check_leaks(slates: pl.DataFrame, feature_table: pl.DataFrame, interactions: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Every check fails the stage; the counts are for metrics.json."""
    trained_on = fitted_on()
    return {
        "test_is_later": check_test_is_later(slates, interactions),
        "histories": check_histories(slates, interactions),
        "targets": check_targets(slates, interactions),
        "out_of_sample": check_out_of_sample(
            slates, training_interactions(interactions, trained_on), "the retriever", dealt_folds(interactions)
        ),
        **({"grades": check_grades(slates, interactions)} if "grades" in slates.columns else {}),
        "candidate_features": check_candidate_features(feature_table, interactions, trained_on),
    }


def dealt_folds(interactions: pl.DataFrame) -> pl.DataFrame | None:
    """Which user was dealt to which fold of the retriever; None where it was trained without folds."""
    path = DATA / "retrieve/metrics.json"
    metrics = read_json(path)
    try:
        if metrics["cross_fit"] != "folds":
            return None
        return assign_folds(interactions["user"], metrics["folds"]["number"], metrics["folds"]["seed"])
    except KeyError as missing:
        raise StageError(f"{path}: {missing} is missing, so nobody can say what the retriever saw; rerun: gr2 run retrieve") from None

"""The leak checks of every evaluation: a planted leak stops it, loudly."""

import polars as pl

from stages.shared.errors import StageError
from stages.shared.folds import deal
from stages.shared.leaks import (
    check_evidence,
    check_histories,
    check_out_of_sample,
    check_targets,
    check_test_is_later,
    training_interactions,
)
from stages.shared.outputs import DATA, read_json


def check_leaks(slates: pl.DataFrame, evidence: pl.DataFrame, interactions: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Every check fails the stage; the counts are for metrics.json."""
    fitted_on, dealt = pre_ranker(interactions)
    return {
        "test_is_later": check_test_is_later(slates, interactions),
        "histories": check_histories(slates, interactions),
        "targets": check_targets(slates, interactions),
        "out_of_sample": check_out_of_sample(slates, training_interactions(interactions, fitted_on), "the pre-ranker", dealt),
        "evidence": check_evidence(evidence, interactions, fitted_on),
    }


def pre_ranker(interactions: pl.DataFrame) -> tuple[tuple[str, ...], pl.DataFrame | None]:
    """The splits that data/prerank learnt from, and with folds which user was dealt to which."""
    path = DATA / "prerank/metrics.json"
    told = read_json(path)
    try:
        fitted_on, cross_fit = tuple(told["fitted_on"]), told["cross_fit"]
        dealt = deal(interactions["user"], told["folds"]["number"], told["folds"]["seed"]) if cross_fit == "folds" else None
    except KeyError as missing:
        raise StageError(f"{path}: {missing} is missing, so nobody can say what the pre-ranker saw; rerun: gr2 run prerank") from None
    return fitted_on, dealt

"""The leak checks of every evaluation: a planted leak stops it, loudly."""

import polars as pl

from stages.shared.leaks import (
    check_evidence,
    check_histories,
    check_out_of_sample,
    check_targets,
    check_test_is_later,
    training_interactions,
)


def check_leaks(slates: pl.DataFrame, evidence: pl.DataFrame, interactions: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Every check fails the stage; the counts are for metrics.json."""
    return {
        "test_is_later": check_test_is_later(slates, interactions),
        "histories": check_histories(slates, interactions),
        "targets": check_targets(slates, interactions),
        "out_of_sample": check_out_of_sample(slates, training_interactions(interactions), "the pre-ranker"),
        "evidence": check_evidence(evidence, interactions),
    }

"""LambdaMART (Burges 2010) over a slate's features: the statistical teacher's scorer, and the baseline to beat in the report."""

from collections.abc import Sequence

import lightgbm as lgb
import numpy as np

from stages.shared.core.errors import StageError
from stages.shared.recsys.lambdamart_params import LambdaMartParams

TRUNCATION = 5  # NDCG@5 is the headline metric of this project


def fit(features: np.ndarray, relevance: np.ndarray, seed: int, threads: int, params: LambdaMartParams) -> lgb.Booster:
    """features [n, K, F], relevance [n] (rank of the one relevant candidate, from 0) or [n, K] (grades, gain 2^grade - 1) -> the trees.

    A row of features that is all NaN is no candidate: slates may be of unlike length. StageError where the trees could not separate any
    candidates: too few slates, or features that say nothing.
    """
    n, k, _ = features.shape
    labels = relevance.astype(np.int32) if relevance.ndim == 2 else (np.arange(k) == relevance[:, None]).astype(np.int32)
    present = present_candidates(features)
    options = {
        "objective": "lambdarank",
        "lambdarank_truncation_level": TRUNCATION,
        "learning_rate": params.learning_rate,
        "num_leaves": params.leaves,
        "min_data_in_leaf": params.min_leaf,
        "lambda_l2": params.l2,
        "feature_fraction": params.feature_share,
        "seed": seed,
        "num_threads": threads,
        "deterministic": True,  # with force_row_wise and fixed threads: the same trees on the same machine
        "force_row_wise": True,
        "verbosity": -1,
    }
    table = lgb.Dataset(features[present], labels[present], group=present.sum(axis=1), params={"verbosity": -1})
    booster = lgb.train(options, table, num_boost_round=params.rounds)
    # LightGBM trains on without an error when no split pays; its scores are then all the same.
    if np.ptp(scores(booster, features)[present]) == 0.0:
        raise StageError(
            f"LambdaMART found nothing to split on in {n} slates: it needs more slates, or a smaller min_leaf ({params.min_leaf})"
        )
    return booster


def fit_ensemble(
    features: np.ndarray, relevance: np.ndarray, seed: int, threads: int, params: LambdaMartParams, members: int
) -> list[lgb.Booster]:
    """`members` fits that draw other features for their trees (seed, seed + 1, ...): the mean of their scores varies less than one."""
    return [fit(features, relevance, seed + number, threads, params) for number in range(members)]


def mean_scores(boosters: Sequence[lgb.Booster], features: np.ndarray) -> np.ndarray:
    """`scores`, averaged over the members of an ensemble."""
    mean: np.ndarray = np.mean([scores(booster, features) for booster in boosters], axis=0)
    return mean


def scores(booster: lgb.Booster, features: np.ndarray) -> np.ndarray:
    """features [n, K, F] -> [n, K]; comparable within one booster. -inf where there is no candidate."""
    present = present_candidates(features)
    values = np.full(present.shape, -np.inf)
    values[present] = booster.predict(features[present])
    return values


def present_candidates(features: np.ndarray) -> np.ndarray:
    """features [n, K, F] -> [n, K]: where there is a candidate."""
    present: np.ndarray = ~np.isnan(features).all(axis=2)
    return present


def contributions(booster: lgb.Booster, features: np.ndarray) -> np.ndarray:
    """features [n, K, F] -> [n, K, F], the share of the score owed to each feature (SHAP; without the constant)."""
    present, width = present_candidates(features), features.shape[2]
    values = np.zeros(features.shape)
    values[present] = np.asarray(booster.predict(features[present], pred_contrib=True), dtype=np.float64)[:, :width]
    return values


def mean_contributions(boosters: Sequence[lgb.Booster], features: np.ndarray) -> np.ndarray:
    """`contributions`, averaged over the members of an ensemble: with a constant of the ensemble they add up to `mean_scores`."""
    mean: np.ndarray = np.mean([contributions(booster, features) for booster in boosters], axis=0)
    return mean

"""The fold of each user when the retriever is cross-fitted: assigned in retrieve, assigned again where the slates are checked."""

import numpy as np
import polars as pl


def assign_folds(users: pl.Series, folds: int, seed: int) -> pl.DataFrame:
    """(user, fold) of every distinct user of `users`, by user: a seeded permutation, folds whose sizes differ by at most one user."""
    distinct_users = np.unique(users.to_numpy())
    fold_U = np.empty(len(distinct_users), dtype=np.int32)
    fold_U[np.random.default_rng(seed).permutation(len(distinct_users))] = np.arange(len(distinct_users)) % folds
    return pl.DataFrame({"user": distinct_users, "fold": fold_U}, schema={"user": pl.Int32, "fold": pl.Int32})

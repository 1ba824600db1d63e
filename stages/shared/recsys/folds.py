"""Which fold a user is dealt to when the retriever is cross-fitted: made in retrieve, made again where the slates are checked."""

import numpy as np
import polars as pl


def deal(users: pl.Series, folds: int, seed: int) -> pl.DataFrame:
    """(user, fold) of every distinct user of `users`, by user: a seeded permutation, folds as equal as can be."""
    own = np.unique(users.to_numpy())
    fold_U = np.empty(len(own), dtype=np.int32)
    fold_U[np.random.default_rng(seed).permutation(len(own))] = np.arange(len(own)) % folds
    return pl.DataFrame({"user": own, "fold": fold_U}, schema={"user": pl.Int32, "fold": pl.Int32})

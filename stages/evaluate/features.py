"""The candidate features themselves (not their bins), which the baselines read."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.shared.slates.candidate_features import features_of
from stages.shared.slates.reranking.padding import padded
from stages.shared.slates.slate import Slate


def read_features(feature_table: pl.DataFrame, slates: Sequence[Slate]) -> NDArray[np.floating]:
    """Of each slate, float32 [n, K, features], in the order of `slates`; NaN past the end of a slate shorter than the longest."""
    by_slate = feature_table.sort("slate", "rank").group_by("slate", maintain_order=True)
    table = dict(by_slate.agg(pl.concat_list(list(features_of(feature_table))).alias("features")).iter_rows())
    return padded([table[slate.slate] for slate in slates], np.nan, np.float32)

"""The slates that are measured, with all that is known about them; and the training slates that comparators learn from."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.evaluate.leak_checks import check_leaks, retriever
from stages.shared.core.errors import StageError
from stages.shared.core.leakage import training_counts
from stages.shared.core.outputs import DATA
from stages.shared.core.schemas import INTERACTIONS, ITEMS, SIDS, SLATES, read_table
from stages.shared.slates.candidate_features import CANDIDATE_FEATURES, FEATURES
from stages.shared.slates.prompts import Catalog, Slate, load_slates

Floats = NDArray[np.floating]
Ints = NDArray[np.int_]


@dataclass(frozen=True)
class HeldOut:
    """slates: of the test split, with their target, by slate. users, positions, targets [n]: the slate's user, how many items the user
    took before, and the incoming rank of the target. missed: user -> test slates in which the retriever missed the target.

    train: the training slates, with their features. counts [items]: see training_counts; of the splits that the
    retriever read.
    """

    slates: list[Slate]
    users: Ints
    positions: Ints
    targets: Ints
    candidates_NK: Ints
    features_NKF: Floats
    missed: dict[int, int]
    train: list[Slate]
    train_features_MKF: Floats
    counts: Ints
    catalog: Catalog
    interactions: pl.DataFrame
    leak_check: dict[str, dict[str, int]]


def load_held_out(max_slates: int) -> HeldOut:
    """Fails on a leak. max_slates: only the first so many by user, then position; 0 = all."""
    table = read_table(DATA / "retrieve/slates.parquet", SLATES)
    feature_table = read_table(DATA / "retrieve/candidate_features.parquet", CANDIDATE_FEATURES)
    items = read_table(DATA / "ingest/items.parquet", ITEMS)
    interactions = read_table(DATA / "ingest/interactions.parquet", INTERACTIONS)
    leak_check = check_leaks(table, feature_table, interactions)
    train = load_slates(table, feature_table, "train")
    test = sorted(load_slates(table, feature_table, "test"), key=lambda slate: slate.slate)
    test = test[:max_slates] if max_slates else test
    if not test or len(test[0].candidates) < 2:
        raise StageError("data/retrieve/slates.parquet: no test slate of two candidates or more holds its target; nothing can be ranked")
    taken_before = dict(table.select("slate", "position").iter_rows())
    users = [slate.user for slate in test]
    return HeldOut(
        slates=test,
        users=np.array(users),
        positions=np.array([taken_before[slate.slate] for slate in test]),
        targets=np.array([slate.target_rank for slate in test]),
        candidates_NK=np.array([slate.candidates for slate in test]),
        features_NKF=feature_values(feature_table, test),
        missed=missed_slates(table, set(users) if max_slates else None),
        train=train,
        train_features_MKF=feature_values(feature_table, train),
        counts=training_counts(interactions, items.height, retriever(interactions)[0]),
        catalog=Catalog.from_tables(read_table(DATA / "tokenize/sids.parquet", SIDS), items),
        interactions=interactions,
        leak_check=leak_check,
    )


def missed_slates(slates: pl.DataFrame, measured: set[int] | None) -> dict[int, int]:
    """user -> test slates in which the retriever missed the target; only of the users `measured`, where given."""
    missed = slates.filter((pl.col("split") == "test") & (pl.col("target_rank") < 0)).group_by("user").len().sort("user")
    return {user: count for user, count in missed.iter_rows() if measured is None or user in measured}


def feature_values(feature_table: pl.DataFrame, slates: list[Slate]) -> Floats:
    """The features of each slate, float32 [n, K, features], in the order of `slates`."""
    grouped = (
        feature_table.sort("slate", "rank").group_by("slate", maintain_order=True).agg(pl.concat_list(list(FEATURES)).alias("features"))
    )
    table = dict(grouped.iter_rows())
    return np.array([table[slate.slate] for slate in slates], dtype=np.float32)

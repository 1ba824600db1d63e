"""The held-out slates that are measured, with all that is known about them."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.shared.core.errors import StageError
from stages.shared.core.leakage import training_counts
from stages.shared.core.outputs import DATA, read_json
from stages.shared.core.params import load_params
from stages.shared.core.schemas import INTERACTIONS, ITEMS, SIDS, read_slate_table, read_table
from stages.shared.slates.candidate_features import read_candidate_features
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.reranking.padding import padded
from stages.shared.slates.slate import Catalog, Slate, load_slates

Ints = NDArray[np.int_]


@dataclass(frozen=True)
class TestSet:
    """slates: of the test split, with their target, by slate. users, positions, targets [n]: the slate's user, how many items the user
    took before, and the initial rank of the target. candidates_NK: -1 past the end of a slate shorter than the longest. missed: user ->
    test slates in which the retriever missed the target.

    counts [items]: see training_counts; of the splits that the retriever read. Logged slates alone: grades [n, K] by initial rank, 0 = not
    taken; propensities [n, K], 1 past the end of a slate, where somebody says.
    """

    __test__ = False  # pytest shall not take it for a class of tests

    slates: list[Slate]
    users: Ints
    positions: Ints
    targets: Ints
    candidates_NK: Ints
    missed: dict[int, int]
    counts: Ints
    catalog: Catalog
    interactions: pl.DataFrame
    grades: Ints | None = None
    propensities: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class SlateTables:
    """The tables that slates are read from."""

    slates: pl.DataFrame
    candidate_features: pl.DataFrame
    interactions: pl.DataFrame


def read_slate_tables() -> SlateTables:
    return SlateTables(
        read_slate_table(DATA / "retrieve/slates.parquet"),
        read_candidate_features(DATA / "retrieve/candidate_features.parquet"),
        read_table(DATA / "ingest/interactions.parquet", INTERACTIONS),
    )


def reported(tables: SlateTables, share: float) -> SlateTables:
    """Without the test slates of the users whom evaluate.promotion_users, `share`, keeps for the decision on promotion."""
    return replace(tables, slates=tables.slates.filter(~_is_reserved(tables.slates, share))) if share else tables


def reserved(tables: SlateTables, share: float) -> SlateTables:
    """Of the test slates only those: used for nothing but the decision on promotion."""
    return replace(tables, slates=tables.slates.filter(_is_reserved(tables.slates, share)))


def _is_reserved(slates: pl.DataFrame, share: float) -> pl.Series:
    """[slates]; by a hash of the user, so that one who is reserved stays so when others come."""
    users = slates.filter(pl.col("split") == "test")["user"].unique().to_list()
    digests = {user: hashlib.sha256(f"promotion {user}".encode()).digest() for user in users}
    chosen = [user for user, digest in digests.items() if int.from_bytes(digest[:8], "big") < share * 2**64]
    return (slates["split"] == "test") & slates["user"].is_in(chosen)


def load_test_set(tables: SlateTables, max_slates: int) -> TestSet:
    """max_slates: only the first so many by user, then position; 0 = all."""
    items = read_table(DATA / "ingest/items.parquet", ITEMS)
    less = load_params("prompt", PromptParams).less_features
    test = sorted(load_slates(tables.slates, tables.candidate_features, "test", less), key=lambda slate: slate.slate)
    test = test[:max_slates] if max_slates else test
    if not test or min(len(slate.candidates) for slate in test) < 2:
        raise StageError("data/retrieve/slates.parquet: no test slate of two candidates or more holds its target; nothing can be ranked")
    # A user's position is the number of items taken before: positions count from 0.
    taken_before = dict(tables.slates.select("slate", "position").iter_rows())
    users = [slate.user for slate in test]
    return TestSet(
        slates=test,
        users=np.array(users),
        positions=np.array([taken_before[slate.slate] for slate in test]),
        targets=np.array([slate.target_rank for slate in test]),
        candidates_NK=padded([slate.candidates for slate in test], -1),
        # With a cap only the users measured: misses of the others belong to slates that were left out.
        missed=missed_slates(tables.slates, set(users) if max_slates else None),
        counts=training_counts(tables.interactions, items.height, fitted_on()),
        catalog=Catalog.from_tables(read_table(DATA / "tokenize/sids.parquet", SIDS), items),
        interactions=tables.interactions,
        grades=padded([slate.relevant for slate in test], 0) if test[0].grades else None,
        propensities=_propensities(tables.slates, test),
    )


def _propensities(slates: pl.DataFrame, test: list[Slate]) -> NDArray[np.float64] | None:
    if "propensities" not in slates.columns:
        return None
    of_slate = dict(slates.select("slate", "propensities").iter_rows())
    listed = [of_slate[slate.slate] for slate in test]
    return None if any(row is None for row in listed) else padded(listed, 1.0, np.float64)


def fitted_on() -> tuple[str, ...]:
    """The splits that the retriever learnt from."""
    path = DATA / "retrieve/metrics.json"
    try:
        return tuple(read_json(path)["fitted_on"])
    except KeyError as missing:
        raise StageError(f"{path}: {missing} is missing, so nobody can say what the retriever saw; rerun: gr2 run retrieve") from None


def missed_slates(slates: pl.DataFrame, measured: set[int] | None) -> dict[int, int]:
    """user -> test slates in which the retriever missed the target; only of the users `measured`, where given."""
    missed = slates.filter((pl.col("split") == "test") & (pl.col("target_rank") < 0)).group_by("user").len().sort("user")
    return {user: count for user, count in missed.iter_rows() if measured is None or user in measured}

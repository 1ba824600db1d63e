from dataclasses import replace
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.shared.core.errors import StageError
from stages.shared.core.schemas import SLATES
from stages.shared.slates.candidate_features import CANDIDATE_FEATURES, FEATURES, features_with, read_candidate_features, schema_with
from stages.shared.slates.slate import RELEVANCE_LEVELS, load_slates, order_of, permuted, top_categories
from tests.stages.shared.slates.test_compact import CATALOG, SLATE


def test_taste_is_the_commonest_categories_ties_by_name():
    assert top_categories([0, 1, 2, 3], CATALOG, 3) == ["Action", "Comedy", "Animation"]
    assert top_categories([], CATALOG, 3) == []


def test_slates_come_by_time_with_their_own_features():
    rows = [(7, 1, 0, 50, "train", [1], [2, 3], [0.5, 0.1], 3, 1), (8, 2, 0, 40, "train", [0], [4, 5], [0.5, 0.1], 4, 0)]
    rows += [(9, 2, 1, 60, "train", [0], [4, 5], [0.5, 0.1], 6, -1), (10, 2, 2, 70, "test", [0], [4, 5], [0.5, 0.1], 4, 0)]
    slates = pl.DataFrame([(*row, -1, "", []) for row in rows], schema=SLATES, orient="row")
    feature_table = [
        (slate, rank, 0, *[0.0] * len(FEATURES), *[slate * 10 + rank] * len(FEATURES)) for slate in (8, 7, 9, 10) for rank in (1, 0)
    ]
    loaded = load_slates(slates, pl.DataFrame(feature_table, schema=CANDIDATE_FEATURES, orient="row"), "train")
    assert [slate.slate for slate in loaded] == [8, 7]
    assert loaded[0].bins == [[80] * len(FEATURES), [81] * len(FEATURES)]
    assert (loaded[1].candidates, loaded[1].target_rank, loaded[1].history) == ([2, 3], 1, [1])
    changed = slates.with_columns(provenance=pl.Series(["injected", "permuted", "", ""]))
    assert load_slates(changed, pl.DataFrame(feature_table, schema=CANDIDATE_FEATURES, orient="row"), "train") == loaded, (
        "marked slates are for training"
    )


def test_slates_have_the_features_that_were_counted(tmp_path):
    features = features_with(["br"])
    row = (7, 0, 0, *[0.0] * len(features), *range(len(features)))
    pl.DataFrame([row], schema=schema_with(features), orient="row").write_parquet(tmp_path / "features.parquet")
    slates = pl.DataFrame([(7, 1, 0, 50, "train", [1], [2], [0.5], 2, 0, -1, "", [])], schema=SLATES, orient="row")
    [slate] = load_slates(slates, read_candidate_features(tmp_path / "features.parquet"), "train")
    assert slate.features == (*FEATURES, "br") and slate.words(0)[-2:] == ["sc5", "br6"]
    pl.DataFrame([row], schema=schema_with(features), orient="row").drop("co").write_parquet(tmp_path / "features.parquet")
    with pytest.raises(StageError, match="the column 'co' is missing"):
        read_candidate_features(tmp_path / "features.parquet")


@given(st.permutations(range(3)))
def test_a_permuted_slate_holds_the_same_candidates(order):
    shown = permuted(SLATE, order)
    assert [(item, bins) for item, bins in zip(shown.candidates, shown.bins, strict=True)] == [
        (SLATE.candidates[rank], SLATE.bins[rank]) for rank in order
    ]
    assert shown.candidates[shown.target_rank] == SLATE.candidates[SLATE.target_rank]
    assert permuted(replace(SLATE, target_rank=-1), order).target_rank == -1


@given(st.lists(st.integers(0, RELEVANCE_LEVELS - 1), min_size=1, max_size=10))
def test_order_of_relevances(relevances):
    order = order_of(relevances)
    assert sorted(order) == list(range(len(relevances)))
    assert all((-relevances[a], a) < (-relevances[b], b) for a, b in pairwise(order))


def test_features_that_no_prompt_shows_are_left_out():
    slates = pl.DataFrame([(7, 1, 5, 1000, "train", [3], [70, 71], [0.0, -1.0], 70, 0, -1, "", [])], schema=SLATES, orient="row")
    rows = [(7, rank, 70 + rank, *[0.5] * len(FEATURES), *range(len(FEATURES))) for rank in (0, 1)]
    table = pl.DataFrame(rows, schema=CANDIDATE_FEATURES, orient="row")
    [slate] = load_slates(slates, table, "train", less=["re"])
    assert slate.features == features_with([], ["re"]) and "re" not in slate.features
    assert slate.words(0) == [word for word in load_slates(slates, table, "train")[0].words(0) if word != "re4"]

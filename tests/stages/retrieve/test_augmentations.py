"""Each option on a whole run, and the properties of what it changes."""

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evaluate.leak_checks import check_leaks
from stages.retrieve import augmentations
from stages.retrieve.retrievers import retriever
from stages.shared.core.errors import StageError
from stages.shared.core.leakage import check_no_heldout
from stages.shared.core.params import validate_section
from stages.shared.slates.features.statistics import count
from stages.shared.slates.slate import load_slates
from tests.support.retrieve_project import PARAMS, USERS, K, N, interactions, items, own_items, run

WEAK = PARAMS.model_copy(update={"epochs": 2, "dropout": 0.0})  # misses many targets
KNN = PARAMS.model_copy(update={"model": "item_knn"})
TRAIN = pl.col("split") == "train"


def with_(**changes):
    return KNN.model_copy(update=changes)


def falling(scores: list[float]) -> bool:
    return scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("cross_fit", ["cut", "folds"])
@pytest.mark.parametrize(
    "change",
    [
        {"positions": 1},
        {"hard_negatives": 2},
        {"inject_targets": True},
        {"order": "shuffled"},
        {"labels": "permuted"},
        {"positions": 2, "hard_negatives": 2, "inject_targets": True, "order": "shuffled", "labels": "permuted"},
    ],
    ids=lambda change: "+".join(change),
)
def test_each_option_in_a_whole_run_passes_every_check_and_leaves_held_out_slates_alone(project, change, cross_fit):
    plain, _, _ = run(project, with_(cross_fit=cross_fit, positions=change.get("positions", 0)))
    slates, feature_table, metrics = run(project, with_(cross_fit=cross_fit, **change))
    check_leaks(slates, feature_table, interactions())
    if "order" not in change:
        assert slates.filter(~TRAIN).equals(plain.filter(~TRAIN))
    assert set(slates.filter(~TRAIN)["provenance"]) == {""} and not slates.filter(~TRAIN)["hard"].list.len().sum()
    for row in slates.iter_rows(named=True):
        assert len(set(row["candidates"])) == K and not set(row["candidates"]) & set(own_items(row["user"])[: row["position"]])
        assert row["target_rank"] == (row["candidates"].index(row["target"]) if row["target"] in row["candidates"] else -1)
        assert "order" in change or falling(row["scores"])
        assert row["target_rank"] not in row["hard"]
    features = feature_table.join(slates.select("slate", "candidates"), on="slate").filter(
        pl.col("candidates").list.get(pl.col("rank")) != pl.col("item")
    )
    assert features.is_empty(), "evidence follows its candidates"
    assert len(load_slates(slates, feature_table, "train")) == metrics["slates"]["train"]["with_target"]


def test_injected_targets_stand_last_with_their_own_score(project):
    plain, _, _ = run(project, WEAK)
    slates, _, metrics = run(project, WEAK.model_copy(update={"inject_targets": True, "hard_pool": 3}))
    model, _ = retriever.fit(WEAK, interactions().filter(pl.col("split") == "base"), N, WEAK.seed)
    injected = slates.filter(pl.col("provenance") == "injected")
    assert injected["slate"].to_list() == plain.filter(TRAIN & (pl.col("target_rank") < 0))["slate"].to_list() and injected.height
    assert slates.filter(pl.col("provenance") == "").equals(plain.join(injected, on="slate", how="anti"))
    for row in injected.iter_rows(named=True):
        past = own_items(row["user"])[: row["position"]]
        found, scores = (part[0].tolist() for part in model.top_k([past], [past], K + 3))
        assert row["candidates"] == [*found[: K - 1], row["target"]] and row["target_rank"] == K - 1
        own = scores[found.index(row["target"])] if row["target"] in found else scores[-1]
        assert row["scores"] == pytest.approx([*scores[: K - 1], own], abs=1e-5)
    assert metrics["slates"]["train"]["hit_rate"] == 1.0
    assert metrics["rank_distance"] == run(project, WEAK)[2]["rank_distance"]


@pytest.mark.parametrize("n", [1, 3, K - 1])
def test_hard_negatives_are_look_alikes_from_beyond_the_slate(project, n):
    plain, _, _ = run(project, WEAK)
    slates, _, _ = run(project, WEAK.model_copy(update={"hard_negatives": n, "hard_pool": 6}))
    model, _ = retriever.fit(WEAK, interactions().filter(pl.col("split") == "base"), N, WEAK.seed)
    category = count(interactions(), items()).category.toarray()
    both = plain.join(slates, on="slate", suffix="_now", maintain_order="left")
    assert slates.drop("candidates", "scores", "hard").equals(plain.drop("candidates", "scores", "hard")), "no target moves"
    for row in both.iter_rows(named=True):
        if row["split"] != "train" or row["target_rank"] < 0:
            assert row["candidates"] == row["candidates_now"] and row["hard_now"] == []
            continue
        past = own_items(row["user"])[: row["position"]]
        found, scores = (part[0].tolist() for part in model.top_k([past], [past], min(K + 6, N)))
        beyond = [place for place in range(K, len(found)) if np.isfinite(scores[place])]
        alike = sorted(beyond, key=lambda place: (-round(float(category[found[place]] @ category[row["target"]]), 4), place))[:n]
        places = [place for place in range(K) if place != row["target_rank"]][-n:]
        expected = dict(zip(places, sorted(alike), strict=True))
        assert row["hard_now"] == places
        assert row["candidates_now"] == [found[expected.get(place, place)] for place in range(K)]
        for place, source in expected.items():
            raised = row["scores"][row["target_rank"]] if place < row["target_rank"] else scores[source]
            assert row["scores_now"][place] == pytest.approx(raised, abs=1e-5)


def test_a_target_that_stands_in_the_pool_is_no_look_alike_of_itself():
    batch = augmentations.Batch.of(np.array([[0, 1, 2]]), np.array([[3.0, 2.0, 1.0]], dtype=np.float32), np.array([1]))
    pool, scores = np.array([[1, 4, 5]]), np.array([[0.5, 0.4, -np.inf]], dtype=np.float32)
    made = augmentations.add_hard_negatives(batch, np.array([True]), pool, scores, sp.csr_matrix(np.ones((6, 1), dtype=np.float32)), 2)
    assert made.items_NK.tolist() == [[0, 1, 4]] and made.hard_NK.tolist() == [[False, False, True]], "what cannot be filled stays"


def test_shuffled_slates_are_the_same_slates_in_an_order_of_chance(project):
    plain, told, _ = run(project, KNN)
    slates, feature_table, _ = run(project, with_(order="shuffled"))
    moved = plain.join(slates, on="slate", suffix="_now", maintain_order="left")
    for row in moved.iter_rows(named=True):
        pairs, now = zip(row["candidates"], row["scores"], strict=True), zip(row["candidates_now"], row["scores_now"], strict=True)
        assert sorted(pairs) == sorted(now) and row["target"] == row["target_now"]
    places = [row["candidates"].index(row["candidates_now"][0]) for row in moved.iter_rows(named=True)]
    assert min(np.bincount(places, minlength=K)) > len(places) / K / 2, "the first may come from anywhere"
    features = ["slate", "item", "co", "tr", "ca", "po", "re", "sc"]
    assert feature_table.select(features).sort("slate", "item").equals(told.select(features).sort("slate", "item")), (
        "only the order changed"
    )
    fewer = run(project, with_(order="shuffled", cross_fit="folds", folds=2))[0]
    assert fewer.height == slates.height


def test_a_slates_shuffle_depends_on_its_id_alone():
    batch = augmentations.Batch.of(np.tile(np.arange(K), (6, 1)), np.zeros((6, K), dtype=np.float32), np.arange(6) % K)
    whole = augmentations.shuffle(batch, np.arange(6), 1).items_NK
    part = augmentations.Batch.of(batch.items_NK[:2], batch.scores_NK[:2], batch.target_N[:2])
    assert (augmentations.shuffle(part, np.array([4, 2]), 1).items_NK == whole[[4, 2]]).all()
    assert (augmentations.shuffle(batch, np.arange(6), 2).items_NK != whole).any()


@pytest.mark.parametrize("cross_fit", ["cut", "folds"])
def test_permuted_labels_keep_the_ranks_and_nothing_else(project, cross_fit):
    plain, told, before = run(project, with_(cross_fit=cross_fit))
    slates, feature_table, after = run(project, with_(cross_fit=cross_fit, labels="permuted"))
    assert feature_table.equals(told) and after["slates"] == before["slates"] and after["rank_distance"] == before["rank_distance"]
    changed = TRAIN & (pl.col("target_rank") >= 0)
    assert slates.filter(~changed).equals(plain.filter(~changed))
    assert set(slates.filter(changed)["provenance"]) == {"permuted"}
    assert sorted(slates.filter(changed)["target_rank"]) == sorted(plain.filter(changed)["target_rank"])
    assert slates.drop("target", "target_rank", "provenance").equals(plain.drop("target", "target_rank", "provenance"))
    assert (slates.filter(changed)["target"] != plain.filter(changed)["target"]).any()
    check_no_heldout(slates.filter(TRAIN).select("user", pl.col("target").alias("item")), interactions(), "a later stage")


@settings(max_examples=200)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_permuted_ranks_shun_what_is_taboo(seed, n):
    rng = np.random.default_rng(seed)
    taboo, rank = rng.random((n, K)) < 0.3, rng.integers(0, K, n)
    taboo[np.arange(n), rank] = False  # as no real training target is held out
    try:
        found = augmentations.permuted(rank, taboo, seed)
    except StageError as error:
        assert "labels permuted" in str(error)
        return
    assert sorted(found) == sorted(rank) and not taboo[np.arange(n), found].any()


def test_permuted_ranks_are_independent_of_the_real_ones():
    rng = np.random.default_rng(0)
    rank = rng.integers(0, K, 5000)
    found = augmentations.permuted(rank, np.zeros((5000, K), dtype=bool), 1)
    assert abs(np.mean(found == rank) - 1 / K) < 0.03 and abs(np.corrcoef(found, rank)[0, 1]) < 0.05


def test_hard_negatives_must_leave_the_target_a_place():
    with pytest.raises(StageError, match=r"hard_negatives \(5\) must be less than candidates \(5\)"):
        validate_section("retrieve", type(PARAMS), {"candidates": 5, "hard_negatives": 5}, "params.yaml")


def test_every_user_has_slates(project):
    assert run(project, with_(positions=1))[0].height == USERS * 3

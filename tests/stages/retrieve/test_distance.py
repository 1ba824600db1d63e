"""Distances of rank histograms: by hand, against chance, and on slates whose targets the model has or has not seen."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.retrieve import folds, slates
from stages.retrieve.distance import DRAWS, rank_distance, rank_distances
from stages.retrieve.params import RetrieveParams
from stages.retrieve.retrievers import retriever
from stages.shared.core.schemas import INTERACTIONS, ITEMS
from stages.shared.slates.features.statistics import count

ranks = st.lists(st.integers(-1, 3), min_size=1, max_size=30)


def test_by_hand():
    found = rank_distance(np.array([0, 0, 1, -1]), np.array([1, 1, 2, 2, -1, -1, -1, -1]), 3, 0)
    assert found["total_variation"]["value"] == pytest.approx(0.5 * (2 / 3 + abs(1 / 3 - 1 / 2) + 1 / 2))
    assert found["hit_rate"]["difference"] == pytest.approx(3 / 4 - 4 / 8)


@given(ranks, ranks)
def test_against_loops_and_symmetric(one, other):
    found, back = rank_distance(np.array(one), np.array(other), 4, 1), rank_distance(np.array(other), np.array(one), 4, 1)
    hits = [[rank for rank in own if rank >= 0] for own in (one, other)]
    if not all(hits):
        assert found["total_variation"] is None
    else:
        shares = [[own.count(rank) / len(own) for rank in range(4)] for own in hits]
        expected = sum(abs(a - b) for a, b in zip(*shares, strict=True)) / 2
        assert found["total_variation"]["value"] == pytest.approx(expected) == back["total_variation"]["value"]
        assert 1 / (DRAWS + 1) <= found["total_variation"]["p"] <= 1
    assert found["hit_rate"]["difference"] == pytest.approx(len(hits[0]) / len(one) - len(hits[1]) / len(other))
    assert found["hit_rate"]["difference"] == pytest.approx(-back["hit_rate"]["difference"])


def test_chance_agrees_with_shuffling_the_labels():
    rng = np.random.default_rng(5)
    one, other = rng.integers(-1, 5, 80), rng.integers(-1, 5, 40)
    found = rank_distance(one, other, 5, 0)
    pooled, shuffled = np.concatenate([one, other])[np.concatenate([one, other]) >= 0], []
    first = int((one >= 0).sum())
    for _ in range(2000):
        mixed = rng.permutation(pooled)
        shares = [np.bincount(fold, minlength=5) / len(fold) for fold in (mixed[:first], mixed[first:])]
        shuffled.append(0.5 * np.abs(shares[0] - shares[1]).sum())
    assert found["total_variation"]["chance_mean"] == pytest.approx(np.mean(shuffled), rel=0.05)
    assert found["total_variation"]["chance_p95"] == pytest.approx(np.quantile(shuffled, 0.95), rel=0.08)


def test_p_is_uniform_where_both_come_from_one_distribution():
    rng = np.random.default_rng(0)
    p = [rank_distance(rng.integers(-1, 5, 200), rng.integers(-1, 5, 100), 5, draw)["total_variation"]["p"] for draw in range(200)]
    assert 0.02 < np.mean(np.array(p) < 0.1) < 0.2 and 0.4 < np.mean(p) < 0.6


USERS, ITEM_COUNT, K = 200, 60, 10
SHORT = ["base"] * 4 + ["train"] * 2 + ["valid", "test"]
OVERFIT = {"hidden": 32, "layers": 1, "heads": 1, "max_length": 8, "dropout": 0.0, "epochs": 30, "lr": 0.01, "device": "cpu"}
PARAMS = RetrieveParams(candidates=K, cross_fit="folds", folds=2, **OVERFIT)


def noise() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Short sequences by chance, as nothing to learn, so that all a model seems to know it has seen."""
    rng = np.random.default_rng(3)
    taken = [rng.permutation(ITEM_COUNT)[: len(SHORT)].tolist() for _ in range(USERS)]
    rows = [(u, item, i, 10**9 + i, SHORT[i]) for u, own in enumerate(taken) for i, item in enumerate(own)]
    items = [(i, str(i), "", "", [], None, "") for i in range(ITEM_COUNT)]
    return pl.DataFrame(rows, schema=INTERACTIONS, orient="row"), pl.DataFrame(items, schema=ITEMS, orient="row")


def ranked(in_sample: bool) -> pl.DataFrame:
    """By folds, or all by one model of base and train."""
    log, items = noise()
    wanted, everything = slates.slate_positions(log, 0), log.filter(pl.col("split").is_in(["base", "train"]))
    fold_list = [folds.Fold(-1, wanted, log, everything)] if in_sample else folds.all_folds(wanted, log, PARAMS)
    made = []
    for fold in fold_list:
        model, _ = retriever.fit(PARAMS, fold.training, ITEM_COUNT, 0)
        made.append(slates.make(model, fold.positions, log, count(fold.training, items), PARAMS, fold.number))
    return pl.concat(made)


def test_slates_in_sample_stand_out_and_those_of_folds_do_not():
    """A model that has seen the training targets finds nearly all of them, and high up."""
    seen, unseen = (rank_distances(ranked(in_sample), K, 0) for in_sample in (True, False))
    for pair in ("train_valid", "train_test"):
        assert seen[pair]["hit_rate"]["p"] < 0.005 and seen[pair]["hit_rate"]["difference"] > 0.3
        assert seen[pair]["total_variation"]["p"] < 0.005
        assert seen[pair]["total_variation"]["value"] > 1.2 * seen[pair]["total_variation"]["chance_p95"]
        assert unseen[pair]["hit_rate"]["p"] > 0.05 and abs(unseen[pair]["hit_rate"]["difference"]) < 0.1
        assert unseen[pair]["total_variation"]["p"] > 0.05


def test_injected_targets_count_as_missed():
    table = ranked(False)
    changed = table.with_columns(
        provenance=pl.when((pl.col("split") == "train") & (pl.col("target_rank") < 0)).then(pl.lit("injected")).otherwise("provenance"),
        target_rank=pl.when(pl.col("target_rank") < 0).then(K - 1).otherwise("target_rank").cast(pl.Int32),
    )
    held = changed["split"] != "train"
    changed = pl.concat([changed.filter(~held), table.filter(held)])
    assert rank_distances(changed, K, 0) == rank_distances(table, K, 0)

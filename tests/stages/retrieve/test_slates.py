"""The stage on a log of 40 users whose next item follows from the last one, cut after base."""

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import ndcg_score

from stages.retrieve import slates as slates_module
from stages.retrieve.retrievers.sequence_model import SequenceRanker
from stages.shared.core.errors import StageError
from stages.shared.core.schemas import INTERACTIONS, ITEMS, write_table
from stages.shared.recsys import sasrec
from stages.shared.slates.candidate_features import FEATURES, features_of
from stages.shared.slates.features.kinds import count_kinds
from stages.shared.slates.features.statistics import count
from tests.support.retrieve_project import (
    PARAMS,
    SPLITS,
    START,
    USERS,
    K,
    N,
    interactions,
    items,
    others,
    own_items,
    run,
    write_prompt_params,
)


def test_slates_stand_after_base_and_know_where_the_target_is(project):
    slates, _, metrics = run(project)
    assert slates.height == USERS * 6 and slates["slate"].to_list() == list(range(slates.height))
    assert sorted(slates.filter(pl.col("user") == 3)["position"]) == list(range(8, 14)), "no slate inside base"
    names = dict(zip(range(8, 14), ["train"] * 3 + ["valid"] + ["test"] * 2, strict=True))
    for row in slates.iter_rows(named=True):
        own, place = own_items(row["user"]), row["position"]
        assert row["split"] == names[place] and row["timestamp"] == START + 100 * place + row["user"]
        assert row["target"] == own[place] and row["history"] == own[place - 4 : place]
        assert len(set(row["candidates"])) == K and not set(row["candidates"]) & set(own[:place])
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert row["target_rank"] == (row["candidates"].index(row["target"]) if row["target"] in row["candidates"] else -1)
        assert (row["fold"], row["provenance"], row["hard"]) == (-1, "", [])
    assert metrics["slates"]["train"]["slates"] == 120 and metrics["slates"]["test"]["slates"] == 80
    assert metrics["cross_fit"] == "cut" and metrics["fitted_on"] == ["base"] and "folds" not in metrics
    assert metrics["leak_check"]["overlap"] == 0 and metrics["loss"]["last"] < metrics["loss"]["first"]


def test_metrics_count_what_the_slates_hold(project):
    slates, _, metrics = run(project)
    for split in ("train", "valid", "test"):
        ranks = slates.filter(pl.col("split") == split)["target_rank"].to_list()
        hits = [rank for rank in ranks if rank >= 0]
        own = metrics["slates"][split]
        assert own["with_target"] == len(hits) and own["hit_rate"] == pytest.approx(len(hits) / len(ranks))
        gains = [ndcg_score([[rank == place for place in range(K)]], [range(K, 0, -1)]) if rank >= 0 else 0.0 for rank in ranks]
        assert own["ndcg"] == pytest.approx(sum(gains) / len(ranks))
        assert own["rank_histogram"] == pytest.approx([hits.count(rank) / len(hits) for rank in range(K)])


def test_features_are_written_for_slates_with_their_target_in_their_order(project):
    slates, feature_table, _ = run(project)
    told = slates.filter(pl.col("target_rank") >= 0)
    assert feature_table["slate"].to_list() == [slate for slate in told["slate"] for _ in range(K)]
    assert feature_table["item"].to_list() == [item for own in told["candidates"] for item in own]
    assert feature_table["rank"].to_list() == list(range(K)) * told.height
    for feature in FEATURES:
        pairs = sorted(zip(feature_table[feature], feature_table[f"{feature}_bin"], strict=True))
        bins = [level for _, level in pairs]
        assert bins == sorted(bins) and set(bins) <= set(range(4)), f"{feature}: a greater value may not have a lesser level"
    assert feature_table.filter(pl.col("rank") == 0)["sc"].abs().max() == 0 and feature_table["sc"].max() == 0


def test_a_log_without_times_says_that_recency_tells_nothing(project, capsys):
    run(project)
    assert "has no times" not in capsys.readouterr().out
    write_table(
        interactions().with_columns(timestamp=pl.col("position").cast(pl.Int64)), project / "data/ingest/interactions.parquet", INTERACTIONS
    )
    _, feature_table, _ = run(project)
    assert feature_table["re"].n_unique() == 1
    assert "the feature re is the same for every item; prompt.less_features: [re] leaves it out" in capsys.readouterr().out


def test_neither_model_nor_counts_see_what_comes_after_base(project):
    """Other items after base: the same weights, and the same features of the same candidates."""
    run(project)
    weights = (project / "data/retrieve/model/sasrec.safetensors").read_bytes()
    changed = others(pl.col("split") != "base")
    write_table(changed, project / "data/ingest/interactions.parquet", INTERACTIONS)
    run(project)
    assert (project / "data/retrieve/model/sasrec.safetensors").read_bytes() == weights


def test_more_features_stand_behind_the_six_and_see_no_more_than_base(project):
    catalogue = items().with_columns(brand=pl.Series([f"b{i % 4}" if i % 3 else "" for i in range(N)]))
    write_table(catalogue, project / "data/ingest/items.parquet", ITEMS)
    slates, six, _ = run(project)
    write_prompt_params(project, more_features=["br", "fo"])
    again, eight, _ = run(project)
    assert again.equals(slates) and eight.select(six.columns).equals(six)
    assert features_of(eight) == (*FEATURES, "fo", "br") and len(eight.columns) == len(six.columns) + 4
    told = slates.filter(pl.col("target_rank") >= 0)
    base = interactions().filter(pl.col("split") == "base")
    kinds = count_kinds(base["user"].to_numpy(), base["item"].to_numpy(), catalogue)
    last_two, found = np.array([history[:-3:-1] for history in told["history"].to_list()]), np.array(told["candidates"].to_list())
    assert eight["fo"].to_list() == kinds.follows(last_two, found).ravel().tolist() and eight["fo"].n_unique() > 2
    assert eight["br"].to_list() == kinds.same_brand(last_two, found).ravel().tolist() and set(eight["br"]) == {0, 0.5, 1}
    for feature in ("fo", "br"):
        bins = eight.sort(feature)[f"{feature}_bin"]
        assert bins.is_sorted() and set(bins) <= set(range(4))


def test_same_seed_same_bytes(project):
    def contents() -> dict[str, bytes]:
        run(project)
        return {str(path): path.read_bytes() for path in sorted((project / "data/retrieve").rglob("*")) if path.is_file()}

    assert contents() == contents()


CHANGES = [
    {"candidates": 4},
    {"history": 3},
    {"max_length": 4},
    {"hidden": 8},
    {"layers": 2},
    {"heads": 2},
    {"dropout": 0.0},
    {"epochs": 2},
]
CHANGES += [{"batch_size": 8}, {"lr": 0.01}, {"feature_history": 2}, {"feature_bins": 3}, {"seed": 1}]
CHANGES += [{"positions": 1}, {"cross_fit": "folds"}, {"hard_negatives": 2}, {"inject_targets": True}, {"order": "shuffled"}]
CHANGES += [{"labels": "permuted"}, {"folds": 2, "cross_fit": "folds"}, {"hard_pool": 2, "hard_negatives": 2}]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_every_parameter_changes_the_slates_or_their_features(project, change):
    needed = {key: value for key, value in list(change.items())[1:]}  # what has to be on for the first to matter
    before = run(project, PARAMS.model_copy(update=needed))
    after = run(project, PARAMS.model_copy(update=change))
    assert not (before[0].equals(after[0]) and before[1].equals(after[1]))


def test_too_few_items_for_a_slate(project):
    write_table(items(K), project / "data/ingest/items.parquet", ITEMS)
    with pytest.raises(StageError, match=r"items\.parquet: 5 items cannot fill slates of 5; lower retrieve\.candidates"):
        run(project)


def test_a_user_who_has_taken_nearly_everything(project):
    """Thirteen items taken of 25 leave twelve, and a slate takes thirteen."""
    log = interactions().filter(pl.col("user") < 3)
    write_table(log, project / "data/ingest/interactions.parquet", INTERACTIONS)
    params = PARAMS.model_copy(update={"candidates": 13})
    with pytest.raises(StageError, match=r"user 0 has taken all but fewer than 13 items; lower retrieve\.candidates"):
        run(project, params)


def test_nothing_to_learn_from(project):
    write_table(interactions().filter(pl.col("split") != "base"), project / "data/ingest/interactions.parquet", INTERACTIONS)
    with pytest.raises(StageError, match=r"nothing in base to learn from; raise ingest\.base_share"):
        run(project)


def test_no_position_after_base(project):
    write_table(interactions().filter(pl.col("split") == "base"), project / "data/ingest/interactions.parquet", INTERACTIONS)
    with pytest.raises(StageError, match="no position after the base split"):
        run(project)


def test_slates_are_what_the_model_finds():
    torch.manual_seed(0)
    model = sasrec.SASRec(N, 16, 1, 1, 6, 0.0).eval()
    log = interactions()
    counts = count(log.filter(pl.col("split") == "base"), items())
    slates = slates_module.make(SequenceRanker(model), slates_module.slate_positions(log, 0), log, counts, PARAMS, -1)
    row = slates.filter((pl.col("user") == 5) & (pl.col("position") == 13)).row(0, named=True)
    found, scores = sasrec.top_k(model, [own_items(5)[:13]], [own_items(5)[:13]], K)
    assert row["candidates"] == found[0].tolist() and row["scores"] == pytest.approx(scores[0].tolist(), abs=1e-5)


def test_slates_do_not_depend_on_how_they_are_batched(project, monkeypatch):
    whole = run(project)
    monkeypatch.setattr(slates_module, "BATCH", 7)
    parts = run(project)
    assert whole[0].drop("scores").equals(parts[0].drop("scores")) and whole[1].drop("sc").equals(parts[1].drop("sc"))


@pytest.mark.parametrize("positions", [1, 2, 5])
def test_only_the_last_positions_of_each_split(positions):
    found = slates_module.slate_positions(interactions(), positions)
    kept = sorted((user, place) for user, place in found.select("user", "position").iter_rows())
    wanted = [*[8, 9, 10][-positions:], 11, *[12, 13][-positions:]]
    assert kept == [(user, place) for user in range(USERS) for place in wanted]
    assert found["slate"].to_list() == list(range(found.height))
    assert all(own_items(user)[place] == target for user, place, target in found.select("user", "position", "target").iter_rows())
    assert slates_module.slate_positions(interactions(), 0).height == USERS * (len(SPLITS) - 8)


def test_a_ranker_that_finds_too_few():
    class Short:
        def top_k(self, histories, seen, k):
            found, scores = sasrec.top_k(model, histories, seen, k)
            scores[-1, -1] = -float("inf")
            return found, scores

    model, log = sasrec.SASRec(N, 16, 1, 1, 6, 0.0).eval(), interactions()
    counts = count(log.filter(pl.col("split") == "base"), items())
    with pytest.raises(StageError, match=r"found fewer than 5 items for user 39 at position 13; lower retrieve\.candidates or widen"):
        slates_module.make(Short(), slates_module.slate_positions(log, 0), log, counts, PARAMS, -1)

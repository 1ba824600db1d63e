"""The stage on a log of 40 users whose next item follows from the last one."""

import numpy as np
import polars as pl
import pytest
import torch

from stages.prerank import facts
from stages.prerank.params import PrerankParams
from stages.prerank.prerank import make_slates, prerank
from stages.prerank.statistics import count
from stages.shared import sasrec
from stages.shared.errors import StageError
from stages.shared.evidence import EVIDENCE, FACTS
from stages.shared.outputs import read_json, stage_outputs
from stages.shared.tables import INTERACTIONS, ITEMS, SLATES, read_table, write_table

N, USERS, K = 25, 40, 5
SPLITS = ["base"] * 8 + ["slates"] * 3 + ["valid"] + ["test"] * 2
PARAMS = PrerankParams(candidates=K, history=4, max_length=6, hidden=16, layers=1, heads=1, epochs=8, threads=1, evidence_levels=4)


def own_items(user: int) -> list[int]:
    return [(user + step * (1 + user % 2)) % N for step in range(len(SPLITS))]


def interactions() -> pl.DataFrame:
    rows = [(u, item, i, 100 * i + u, SPLITS[i]) for u in range(USERS) for i, item in enumerate(own_items(u))]
    return pl.DataFrame(rows, schema=INTERACTIONS, orient="row")


def items(number: int = N) -> pl.DataFrame:
    rows = [(i, str(i), f"Title {i}", "", [f"c{i % 3}"], None, "") for i in range(number)]
    return pl.DataFrame(rows, schema=ITEMS, orient="row")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/ingest").mkdir(parents=True)
    write_table(interactions(), tmp_path / "data/ingest/interactions.parquet", INTERACTIONS)
    write_table(items(), tmp_path / "data/ingest/items.parquet", ITEMS)
    return tmp_path


def run(project, params: PrerankParams = PARAMS) -> tuple[pl.DataFrame, pl.DataFrame, dict]:
    with stage_outputs("prerank") as outputs:
        prerank(params, outputs)
    folder = project / "data/prerank"
    return (
        read_table(folder / "slates.parquet", SLATES),
        read_table(folder / "evidence.parquet", EVIDENCE),
        read_json(folder / "metrics.json"),
    )


def test_slates_stand_after_base_and_know_where_the_target_is(project):
    slates, _, metrics = run(project)
    assert slates.height == USERS * 6 and slates["slate"].to_list() == list(range(slates.height))
    assert sorted(slates.filter(pl.col("user") == 3)["position"]) == list(range(8, 14)), "no slate inside base"
    names = dict(zip(range(8, 14), ["train"] * 3 + ["valid"] + ["test"] * 2, strict=True))
    for row in slates.iter_rows(named=True):
        own, place = own_items(row["user"]), row["position"]
        assert row["split"] == names[place] and row["timestamp"] == 100 * place + row["user"]
        assert row["target"] == own[place] and row["history"] == own[place - 4 : place]
        assert len(set(row["candidates"])) == K and not set(row["candidates"]) & set(own[:place])
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert row["target_rank"] == (row["candidates"].index(row["target"]) if row["target"] in row["candidates"] else -1)
    assert metrics["slates"]["train"]["slates"] == 120 and metrics["slates"]["test"]["slates"] == 80
    assert metrics["leak_check"]["overlap"] == 0 and metrics["loss"]["last"] < metrics["loss"]["first"]


def test_metrics_count_what_the_slates_hold(project):
    slates, _, metrics = run(project)
    for split in ("train", "valid", "test"):
        ranks = slates.filter(pl.col("split") == split)["target_rank"].to_list()
        hits = [rank for rank in ranks if rank >= 0]
        own = metrics["slates"][split]
        assert own["with_target"] == len(hits) and own["hit_rate"] == pytest.approx(len(hits) / len(ranks))
        assert own["rank_histogram"] == pytest.approx([hits.count(rank) / len(hits) for rank in range(K)])


def test_evidence_is_told_of_slates_with_their_target_in_their_order(project):
    slates, evidence, _ = run(project)
    told = slates.filter(pl.col("target_rank") >= 0)
    assert evidence["slate"].to_list() == [slate for slate in told["slate"] for _ in range(K)]
    assert evidence["item"].to_list() == [item for own in told["candidates"] for item in own]
    assert evidence["rank"].to_list() == list(range(K)) * told.height
    for fact in FACTS:
        pairs = sorted(zip(evidence[fact], evidence[f"{fact}_level"], strict=True))
        levels = [level for _, level in pairs]
        assert levels == sorted(levels) and set(levels) <= set(range(4)), f"{fact}: a greater value may not have a lesser level"
    assert evidence.filter(pl.col("rank") == 0)["sc"].abs().max() == 0 and evidence["sc"].max() == 0


def test_neither_model_nor_counts_see_what_comes_after_base(project):
    """Other items after base: the same weights, and the same facts of the same candidates."""
    run(project)
    weights = (project / "data/prerank/model/sasrec.safetensors").read_bytes()
    changed = interactions().with_columns(
        item=pl.when(pl.col("split") == "base").then("item").otherwise((pl.col("item") * 7 + 3) % N).cast(pl.Int32)
    )
    repeated = changed.join(changed.filter(pl.col("split") == "base").select("user", "item"), on=["user", "item"], how="semi")
    assert repeated.height > 0
    write_table(changed, project / "data/ingest/interactions.parquet", INTERACTIONS)
    run(project)
    assert (project / "data/prerank/model/sasrec.safetensors").read_bytes() == weights


def test_same_seed_same_bytes(project):
    def contents() -> dict[str, bytes]:
        run(project)
        return {str(path): path.read_bytes() for path in sorted((project / "data/prerank").rglob("*")) if path.is_file()}

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
CHANGES += [{"batch_size": 8}, {"lr": 0.01}, {"evidence_last": 2}, {"evidence_levels": 3}, {"seed": 1}]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_every_parameter_changes_the_slates_or_their_evidence(project, change):
    before = run(project)
    after = run(project, PARAMS.model_copy(update=change))
    assert not (before[0].equals(after[0]) and before[1].equals(after[1]))


def test_too_few_items_for_a_slate(project):
    write_table(items(K), project / "data/ingest/items.parquet", ITEMS)
    with pytest.raises(StageError, match=r"items\.parquet: 5 items cannot fill slates of 5; lower prerank\.candidates"):
        run(project)


def test_a_user_who_has_taken_nearly_everything(project):
    """Thirteen items taken of 25 leave twelve, and a slate takes thirteen."""
    log = interactions().filter(pl.col("user") < 3)
    write_table(log, project / "data/ingest/interactions.parquet", INTERACTIONS)
    params = PARAMS.model_copy(update={"candidates": 13})
    with pytest.raises(StageError, match=r"user 0 has taken all but fewer than 13 items; lower prerank\.candidates"):
        run(project, params)


def test_no_position_after_base(project):
    write_table(interactions().filter(pl.col("split") == "base"), project / "data/ingest/interactions.parquet", INTERACTIONS)
    with pytest.raises(StageError, match="no position after the base split"):
        run(project)


def test_no_training_slate_that_holds_its_target():
    with pytest.raises(StageError, match="no training slate holds its target"):
        facts.level_edges(np.zeros((0, K, len(FACTS))), 4)


def test_slates_are_what_the_model_finds():
    torch.manual_seed(0)
    model = sasrec.SASRec(N, 16, 1, 1, 6, 0.0).eval()
    log = interactions()
    slates = make_slates(model, log, PARAMS)
    row = slates.filter((pl.col("user") == 5) & (pl.col("position") == 13)).row(0, named=True)
    found, scores = sasrec.top_k(model, [own_items(5)[:13]], [own_items(5)[:13]], K)
    assert row["candidates"] == found[0].tolist() and row["scores"] == pytest.approx(scores[0].tolist(), abs=1e-5)


def test_facts_equal_sums_over_the_history():
    statistics = count(interactions().filter(pl.col("split") == "base"), items())
    history, candidates, scores = [1, 2, 3, 4, 5], [6, 7, 20], [3.0, 2.5, 1.0]
    values = facts.facts_of(history, candidates, scores, statistics, last=3)
    together, follows, category = (part.toarray() for part in (statistics.cooccurrence, statistics.transition, statistics.category))
    for row, item in enumerate(candidates):
        expected = [
            np.mean([together[past, item] for past in history[-3:]]),
            sum(follows[past, item] for past in history),
            category[item] @ np.mean([category[past] for past in history[-3:]], axis=0),
            statistics.log_count[item],
            statistics.recency[item],
            scores[row] - scores[0],
        ]
        assert values[row] == pytest.approx(expected, abs=1e-6)


def test_levels_split_the_training_slates_evenly():
    values = np.random.default_rng(0).normal(size=(200, K, len(FACTS)))
    levels = facts.to_levels(values, facts.level_edges(values, 4))
    assert levels.dtype == np.int32 and np.bincount(levels[..., 0].ravel()).tolist() == [250] * 4
    beyond = facts.to_levels(np.array([-1e9, 1e9])[:, None].repeat(len(FACTS), 1), facts.level_edges(values, 4))
    assert beyond[0].tolist() == [0] * len(FACTS) and beyond[1].tolist() == [3] * len(FACTS)

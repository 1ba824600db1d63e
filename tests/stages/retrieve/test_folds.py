"""Cross-fitting: nothing that ranks a training slate has seen its user; planted leaks stop the stage."""

import numpy as np
import polars as pl
import pytest

from stages.evaluate.leak_checks import check_leaks
from stages.retrieve import folds
from stages.retrieve.retrieve import retrieve
from stages.retrieve.retrievers import retriever
from stages.retrieve.slates import slate_positions
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import stage_outputs
from stages.shared.core.schemas import INTERACTIONS, write_table
from stages.shared.recsys.folds import assign_folds
from stages.shared.slates.candidate_features import features_of
from stages.shared.slates.features import values as candidate_features
from stages.shared.slates.features.statistics import count
from tests.support.retrieve_project import PARAMS, USERS, K, N, interactions, items, others, own_items, run, write_prompt_params

FOLDS = PARAMS.model_copy(update={"cross_fit": "folds", "folds": 4, "model": "item_knn"})
LEARNT = ("base", "train")


def test_each_fold_is_ranked_and_counted_without_its_users(project):
    """Every slate and feature again, from a fit of our own on the rows that the rule names."""
    write_prompt_params(project, more_features=["fo", "br"])
    slates, feature_table, metrics = run(project, FOLDS)
    features = features_of(feature_table)
    assigned = dict(assign_folds(pl.Series(range(USERS), dtype=pl.Int32), 4, FOLDS.seed).iter_rows())
    assert set(assigned.values()) == {0, 1, 2, 3} == set(slates["fold"]) - {-1}
    for fold in (-1, 0, 1, 2, 3):
        own = slates.filter(pl.col("fold") == fold)
        users = {user for user in range(USERS) if assigned[user] == fold}
        assert set(own["split"]) == ({"valid", "test"} if fold == -1 else {"train"}) and (fold == -1 or set(own["user"]) == users)
        learnt = interactions().filter(pl.col("split").is_in(LEARNT) & ~pl.col("user").is_in(list(users)))
        model, _ = retriever.fit(FOLDS, learnt, N, FOLDS.seed)
        told = [own_items(user)[:place] for user, place in own.select("user", "position").iter_rows()]
        found, scores = model.top_k(told, told, K)
        assert own["candidates"].to_list() == found.tolist() and np.allclose(own["scores"].to_list(), scores)
        met = own.filter(pl.col("target_rank") >= 0)
        values = candidate_features.collect(met, K, count(learnt, items()), FOLDS.feature_history, features=features)
        stored = feature_table.join(met.select("slate"), on="slate", how="semi").select(*features).to_numpy().reshape(values.shape)
        assert np.allclose(stored, values)
    assert metrics["cross_fit"] == "folds" and metrics["fitted_on"] == list(LEARNT)
    assert (metrics["folds"]["number"], metrics["folds"]["seed"], len(metrics["folds"]["figures"])) == (4, FOLDS.seed, 4)
    assert feature_table["slate"].to_list() == [slate for slate in slates.filter(pl.col("target_rank") >= 0)["slate"] for _ in range(K)]
    check_leaks(slates, feature_table, interactions())


@pytest.mark.parametrize("model", ["sasrec", "item_knn", "popularity"])
@pytest.mark.parametrize("cross_fit", ["cut", "folds"])
def test_a_whole_run_of_each_retriever_passes_every_check_of_evaluation(project, model, cross_fit):
    params = PARAMS.model_copy(update={"model": model, "cross_fit": cross_fit, "folds": 3, "epochs": 3})
    try:
        slates, feature_table, metrics = run(project, params)
    except StageError as error:  # what all have in common is not what these users take next
        assert model == "popularity" and "no training slate holds its target" in str(error)
        return
    assert slates["slate"].to_list() == list(range(USERS * 6)) and metrics["slates"]["train"]["slates"] == USERS * 3
    assert len(list((project / "data/retrieve/model").iterdir())) == 1
    checked = check_leaks(slates, feature_table, interactions())
    assert checked["out_of_sample"] == {"slates": USERS * 6, "in_sample": 0} and checked["candidate_features"]["overcounted"] == 0


def test_what_is_held_out_changes_neither_training_slates_nor_the_model(project):
    before, _, _ = run(project, FOLDS)
    weights = sorted((project / "data/retrieve/model").iterdir())[0].read_bytes()
    changed = others(pl.col("split").is_in(["valid", "test"]))
    write_table(changed, project / "data/ingest/interactions.parquet", INTERACTIONS)
    after, _, _ = run(project, FOLDS)
    train = pl.col("split") == "train"
    assert after.filter(train).equals(before.filter(train)) and not after.equals(before)
    assert sorted((project / "data/retrieve/model").iterdir())[0].read_bytes() == weights


def test_same_seed_same_bytes_and_another_deal_for_another(project):
    def contents() -> dict[str, bytes]:
        run(project, FOLDS)
        return {str(path): path.read_bytes() for path in sorted((project / "data/retrieve").rglob("*")) if path.is_file()}

    assert contents() == contents()


def test_one_user_cannot_be_cross_fitted(project):
    write_table(interactions().filter(pl.col("user") == 3), project / "data/ingest/interactions.parquet", INTERACTIONS)
    with pytest.raises(StageError, match=r"only the users of fold 0 have interactions to learn from; retrieve\.cross_fit"):
        run(project, FOLDS)


def plant(monkeypatch, change) -> None:
    honest = folds.all_folds
    monkeypatch.setattr(folds, "all_folds", lambda *args: (change(fold) for fold in honest(*args)))


def with_training(fold: folds.Fold, training: pl.DataFrame) -> folds.Fold:
    return folds.Fold(fold.number, fold.positions, fold.allowed, training)


@pytest.mark.parametrize(("cross_fit", "name"), [("cut", "the retriever"), ("folds", "the retriever of fold 0")])
def test_statistics_that_look_further_than_they_may_stop_the_run(project, monkeypatch, cross_fit, name):
    """base and train of all users: too much for the cut, and for a fold. Also test rows for the model of all."""
    log = interactions()
    plant(monkeypatch, lambda fold: with_training(fold, log.filter(pl.col("split").is_in(LEARNT))))
    with pytest.raises(StageError, match=f"leak in the statistics of {name}: .* counted more often"):
        run(project, FOLDS.model_copy(update={"cross_fit": cross_fit}))
    assert not (project / "data/retrieve").exists()
    monkeypatch.undo()
    monkeypatch.chdir(project)
    plant(monkeypatch, lambda fold: fold if fold.number >= 0 else with_training(fold, log))
    with pytest.raises(StageError, match=r"leak in the statistics of the retriever: .* counted more often"):
        run(project, FOLDS.model_copy(update={"cross_fit": cross_fit}))


@pytest.mark.parametrize(("cross_fit", "name"), [("cut", "the retriever"), ("folds", "the retriever of fold 0")])
def test_in_sample_slates_stop_the_run(project, monkeypatch, cross_fit, name):
    log = interactions().filter(pl.col("split").is_in(LEARNT))
    plant(monkeypatch, lambda fold: folds.Fold(fold.number, fold.positions, interactions(), log))
    monkeypatch.setattr("stages.retrieve.retrieve.check_counts", lambda *args: {})
    with pytest.raises(StageError, match=rf"leak: {name} learnt from the targets of \d+ of \d+ slates \(first: slate \d+, split train"):
        run(project, FOLDS.model_copy(update={"cross_fit": cross_fit}))


def test_evaluation_finds_what_is_planted_in_the_slates_afterwards(project):
    slates, feature_table, _ = run(project, FOLDS)
    train = slates.filter(pl.col("split") == "train").row(0, named=True)
    test = slates.filter(pl.col("split") == "test").row(0, named=True)

    def planted(slate: dict, **changes) -> pl.DataFrame:
        row = pl.DataFrame([{**slate, **changes}], schema=slates.schema)
        return pl.concat([slates.filter(pl.col("slate") != slate["slate"]), row])

    for wrong in (-1, (train["fold"] + 1) % 4):
        with pytest.raises(StageError, match=f"learnt from the targets of 1 of .* slate {train['slate']}, split train, fold {wrong}"):
            check_leaks(planted(train, fold=wrong), feature_table, interactions())
    with pytest.raises(StageError, match=f"held-out slates come from the model of a fold .*slate {test['slate']}"):
        check_leaks(planted(test, fold=1), feature_table, interactions())
    for provenance in ("injected", "permuted"):
        with pytest.raises(StageError, match=f"were changed for training .*slate {test['slate']}, split test, provenance '{provenance}'"):
            check_leaks(planted(test, provenance=provenance), feature_table, interactions())
    with pytest.raises(StageError, match="is in their own history"):
        check_leaks(planted(train, history=[*train["history"], train["target"]]), feature_table, interactions())
    more = feature_table.with_columns(po=pl.col("po") + 0.5)
    with pytest.raises(StageError, match=r"leak in data/retrieve/candidate_features\.parquet"):
        check_leaks(slates, more, interactions())


def test_metrics_of_an_older_run_are_refused(project):
    slates, feature_table, _ = run(project, FOLDS)
    (project / "data/retrieve/metrics.json").write_text("{}")
    with pytest.raises(StageError, match=r"metrics\.json: 'fitted_on' is missing, .*rerun: gr2 run retrieve"):
        check_leaks(slates, feature_table, interactions())


def test_folds_hold_every_slate_once():
    wanted = slate_positions(interactions(), 0)
    for cross_fit in ("cut", "folds"):
        made = list(folds.all_folds(wanted, interactions(), FOLDS.model_copy(update={"cross_fit": cross_fit})))
        assert sorted(slate for fold in made for slate in fold.positions["slate"]) == wanted["slate"].to_list()
        assert made[-1].number == -1 and all(fold.positions["slate"].is_sorted() for fold in made)


def test_users_without_held_out_slates_still_leave_a_model_of_all(project):
    write_table(interactions().filter(pl.col("split").is_in(LEARNT)), project / "data/ingest/interactions.parquet", INTERACTIONS)
    with stage_outputs("retrieve") as outputs:
        retrieve(FOLDS, outputs)
    assert len(list((project / "data/retrieve/model").iterdir())) == 1

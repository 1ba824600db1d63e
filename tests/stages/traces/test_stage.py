from dataclasses import replace

import pytest

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.slates.slate import permuted
from stages.shared.slates.traces import read_traces
from stages.traces.params import TracesParams
from stages.traces.traces import traces
from tests.support.traces_data import LAYOUT, K, make_slates, own_items, write_project

SMALL = {"threads": 1, "time_folds": 3, "temperature": 0.5, "attempts": 3, "scorer": {"rounds": 20, "min_leaf": 10}}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, make_slates())
    return tmp_path


def run(project, **more) -> dict[str, bytes]:
    with stage_outputs("traces") as outputs:
        traces(TracesParams.model_validate({**SMALL, **more}), outputs)
    return {path.name: path.read_bytes() for path in (project / "data/traces").iterdir()}


def test_outputs_fit_together(project):
    assert sorted(run(project)) == ["invocations.parquet", "metrics.json", "slates.parquet", "traces.parquet"]
    table, metrics = read_traces(), read_json(project / "data/traces/metrics.json")
    slates = {slate.slate: slate for slate in make_slates()}
    assert table.height == metrics["sampling"]["kept_traces"] > 50
    assert table["slate"].n_unique() == metrics["sampling"]["accepted"] and metrics["sampling"]["labelled"] == 200
    assert metrics["leak_check"]["overlap"] == 0 and metrics["training_slates"] == 300
    for row in table.iter_rows(named=True):
        slate = permuted(slates[row["slate"]], row["shown"])
        assert row["slate"] >= 100 and row["order"][0] == row["target_rank"] == slate.target_rank
        assert row["prompt"] == LAYOUT.prompt(slate) and row["trace"] == LAYOUT.trace(slate, row["relevances"])
        assert row["answer"] == LAYOUT.answer(slate, row["order"]) and row["mode"] == "rejection"
        assert sorted(row["order"]) == list(range(K)) and len(row["relevances"]) == K
        assert row["timestamp"] == slate.timestamp and row["user"] == slate.user


def test_same_seed_same_bytes(project):
    assert run(project) == run(project)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"mode": "targeted"},
        {"time_folds": 4},
        {"temperature": 0.1},
        {"attempts": 1},
        {"keep": 1},
        {"shuffle": False},
        {"max_noise_rank": 1},
        {"scorer": {"rounds": 5, "min_leaf": 10}},
    ],
)
def test_every_parameter_changes_the_traces(project, change):
    assert run(project, **change)["traces.parquet"] != run(project)["traces.parquet"]


def test_targeted_labels_every_slate_and_says_so(project):
    run(project, mode="targeted")
    table = read_traces()
    assert table["slate"].to_list() == list(range(100, 300)) and set(table["mode"]) == {"targeted"}
    assert read_json(project / "data/traces/metrics.json")["sampling"]["refused_as_luck"] == 0


@pytest.mark.parametrize("held", [20, 21])
def test_a_held_out_target_is_a_leak(project, held):
    slates = make_slates()
    slates[7].candidates[slates[7].target_rank] = own_items(slates[7].user)[held]
    write_project(project, slates)
    with pytest.raises(
        StageError, match=f"leak in traces: 1 held-out interactions .* user 7, .* split {'valid' if held == 20 else 'test'}"
    ):
        run(project)
    assert not (project / "data/traces/traces.parquet").exists()


def test_a_held_out_item_in_a_history_is_a_leak(project):
    slates = make_slates()
    slates[5] = replace(slates[5], history=[*slates[5].history, own_items(5)[21]])
    write_project(project, slates)
    with pytest.raises(StageError, match="leak in traces"):
        run(project)


def test_clear_errors(project):
    with pytest.raises(StageError, match=r"traces\.language_model\.model: the folder of the teacher is not given"):
        run(project, teacher="language_model")
    write_project(project, [replace(slate, split="test") for slate in make_slates()])
    with pytest.raises(StageError, match="no training slate holds its target"):
        run(project)
    (project / "data/retrieve/slates.parquet").write_bytes(b"\xff\xfe")
    with pytest.raises(StageError, match="not a readable Parquet file"):
        run(project)

import json

import numpy as np
import pandas as pd
import pytest

from stages.report.plots_data import headline, write_plots_data
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import stage_outputs
from tests.support.report_data import made_up


@pytest.fixture(scope="module")
def data():
    return made_up()


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    with stage_outputs("report", root) as outputs:
        write_plots_data(outputs, data.summary, data.audits, data.gain_by_rank)
    return root / "report"


def test_metrics_hold_every_ranker_and_metric(data, folder):
    table = pd.read_csv(folder / "plots/metrics.csv")
    assert set(table["ranker"]) == set(data.summary["models"])
    assert not table.duplicated(["ranker", "metric"]).any()
    assert {"ndcg@5", "recall@1", "mrr", "rank_gain"} <= set(table["metric"])
    for row in table.itertuples():
        own = data.summary["models"][row.ranker][row.metric]
        assert (row.mean, row.diff, row.low, row.high) == (own["mean"], own["diff"], *own["diff_ci"])


def test_gains_by_incoming_rank_count_ranks_from_one_and_add_up(data, folder):
    table = pd.read_csv(folder / "plots/gain_by_incoming_rank.csv")
    assert table["incoming_rank"].min() == 1 and table["incoming_rank"].max() == 10
    for name, own in table.groupby("ranker"):
        assert own["slates"].sum() == data.summary["slates"]
        assert own["ndcg_part"].sum() == pytest.approx(data.summary["models"][name]["ndcg@5"]["diff"])
        assert np.average(own["gain_diff"], weights=own["slates"]) == pytest.approx(data.summary["models"][name]["rank_gain"]["diff"])
    assert (table["gain_upper"] == table["incoming_rank"] - 1).all()


def test_the_rank_flow_holds_every_slate_once(data, folder):
    table = pd.read_csv(folder / "plots/rank_flow.csv")
    assert "incoming" not in set(table["ranker"])
    assert (table.groupby("ranker")["slates"].sum() == data.summary["slates"]).all()
    assert table.groupby(["ranker", "incoming_rank"])["share"].sum().to_numpy() == pytest.approx(1.0)
    flow = table[table["ranker"] == "rl"].pivot(index="incoming_rank", columns="new_rank", values="slates")
    assert flow.to_numpy().tolist() == data.rank_flow


def test_the_headline_is_small_and_says_what_the_metrics_say(data, folder):
    found = json.loads((folder / "headline.json").read_text(encoding="utf-8"))
    assert found == headline(data.summary)
    own = data.summary["models"]["rl"]
    assert found["rl"] == {
        "ndcg@5": own["ndcg@5"]["mean"],
        "recall@1": own["recall@1"]["mean"],
        "diff": own["ndcg@5"]["diff"],
        "diff_low": own["ndcg@5"]["diff_ci"][0],
        "diff_high": own["ndcg@5"]["diff_ci"][1],
    }
    assert set(found["incoming"]) == {"ndcg@5", "recall@1"}


def test_equal_data_gives_equal_bytes(data, folder, tmp_path):
    with stage_outputs("report", tmp_path) as outputs:
        write_plots_data(outputs, data.summary, data.audits, data.gain_by_rank)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(files) == 4
    for file in files:
        assert (folder / file).read_bytes() == (tmp_path / "report" / file).read_bytes()


def test_an_interval_that_could_not_be_told_is_left_empty(data, tmp_path):
    row = data.gain_by_rank["rl"][0]
    unknown = row | {kind: row[kind] | {"diff_ci": None} for kind in ("rank_gain", "ndcg@5")}
    with stage_outputs("report", tmp_path) as outputs:
        write_plots_data(outputs, data.summary, data.audits, {"rl": [unknown]})
    table = pd.read_csv(tmp_path / "report/plots/gain_by_incoming_rank.csv")
    assert table[["gain_low", "gain_high", "ndcg_low", "ndcg_high"]].isna().all(axis=None)
    assert table["gain_diff"].notna().all()


def test_a_figure_that_is_no_number_leaves_nothing_behind(data, tmp_path):
    models = data.summary["models"]
    broken = models["rl"] | {"recall@1": models["rl"]["recall@1"] | {"mean": float("nan")}}
    with pytest.raises(StageError, match=r"headline.json: rl.recall@1"), stage_outputs("report", tmp_path) as outputs:
        write_plots_data(outputs, data.summary | {"models": models | {"rl": broken}}, data.audits, data.gain_by_rank)
    assert not list(tmp_path.iterdir())

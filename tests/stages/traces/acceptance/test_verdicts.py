from collections import Counter
from dataclasses import replace

import polars as pl
import pytest

from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.core.schemas import read_table
from stages.traces.acceptance.rejection import SlateLog
from stages.traces.acceptance.verdicts import SLATE_VERDICTS, verdict
from stages.traces.params import TracesParams
from stages.traces.traces import traces
from tests.support.traces_data import make_slates, write_project


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (SlateLog(tries=1, right=1, kept=["a trace"]), "kept"),
        (SlateLog(tries=3, right=1, luck=1, faults=Counter(malformed=2)), "luck"),
        (SlateLog(tries=3, right=2, unverified=2), "unverified"),
        (SlateLog(tries=3), "never_right"),
        (SlateLog(tries=3, faults=Counter(malformed=2)), "never_right"),
        (SlateLog(tries=3, faults=Counter(malformed=2, unfounded=1)), "fault"),
    ],
)
def test_one_word_says_what_became_of_a_slate(log, expected):
    assert verdict(log) == expected


def test_every_training_slate_has_a_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    slates = make_slates()
    missed = [replace(slate, target_rank=-1) for slate in slates[::50]]
    write_project(tmp_path, [*missed, *(slate for slate in slates if slate.slate % 50), replace(slates[0], slate=999, split="test")])
    scorer = {"rounds": 20, "min_leaf": 10}
    with stage_outputs("traces") as outputs:
        traces(TracesParams.model_validate({"threads": 1, "time_folds": 3, "attempts": 2, "verify_shuffles": 1, "scorer": scorer}), outputs)
    table = read_table(tmp_path / "data/traces/slates.parquet", SLATE_VERDICTS)
    kept = pl.read_parquet(tmp_path / "data/traces/traces.parquet").group_by("slate").len().sort("slate")
    sampling = read_json(tmp_path / "data/traces/metrics.json")["sampling"]
    assert table["slate"].to_list() == list(range(300)) and set(table["attempts"]) == {2}
    assert table.filter(pl.col("verdict") == "no_target")["slate"].to_list() == [slate.slate for slate in missed]
    assert table.filter(pl.col("kept") > 0).sort("slate").select("slate", "kept").rows() == kept.rows()
    counts = Counter(table["verdict"])
    asked = table.filter(~pl.col("verdict").is_in(["no_target", "not_labelled"]))
    assert counts["kept"] == sampling["accepted"] and counts["luck"] == sampling["refused_as_luck"] > 0
    assert asked.height == sampling["labelled"] == 300 - len(missed) - counts["not_labelled"] and (asked["tries"] > 0).all()
    assert table["unverified"].sum() == sampling["unverified"] > 0 and set(table["fault"]) == {""}
    assert counts["unverified"] <= table.filter((pl.col("unverified") > 0) & (pl.col("kept") == 0)).height

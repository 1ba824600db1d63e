import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.lm.encoding import WeightedExample
from stages.shared.slates.traces import TRACES, read_traces
from stages.traces.acceptance.student_fit import mean_logprobs
from stages.traces.params import StudentFitParams, TracesParams
from stages.traces.traces import traces
from tests.stages.traces.teachers.test_language_model import save_random_model
from tests.support.chat_models import chat_tokenizer, tiny_qwen3
from tests.support.traces_data import make_slates, write_project

SMALL = {"threads": 1, "time_folds": 3, "temperature": 0.5, "attempts": 2, "keep": 1, "scorer": {"rounds": 20, "min_leaf": 10}}


def test_mean_log_probabilities_by_one_row_at_a_time(monkeypatch):
    monkeypatch.setattr("stages.traces.acceptance.student_fit.LOGITS", 9 * 50_000 * 2)
    tokenizer = chat_tokenizer()
    model, rng = tiny_qwen3(tokenizer), np.random.default_rng(0)
    rows = [rng.integers(0, 1000, size=length).tolist() for length in (9, 5, 7, 4, 9)]
    examples = [WeightedExample(ids, [0.0, 0.0, *[1.0] * (len(ids) - 2)]) for ids in rows]
    expected = []
    for ids in rows:
        logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
        expected.append(np.mean([logprobs[place - 1, ids[place]].item() for place in range(2, len(ids))]))
    assert mean_logprobs(model, tokenizer, examples) == pytest.approx(expected, abs=1e-4)


def run(project, **fit):
    with stage_outputs("traces") as outputs:
        traces(TracesParams.model_validate({**SMALL, "student_fit": fit}), outputs)
    return read_traces(), read_json(project / "data/traces/metrics.json")


def test_improbable_traces_are_dropped_or_weigh_less(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, make_slates())
    save_random_model(tmp_path / "student")
    every, _ = run(tmp_path)
    kept, metrics = run(tmp_path, model="student", drop_below=0.25, device="cpu")
    dropped = every.height - kept.height
    assert dropped == pytest.approx(every.height / 4, abs=1) and metrics["student_fit"]["improbable"] == dropped
    verdicts = pl.read_parquet(tmp_path / "data/traces/slates.parquet")["verdict"].to_list()
    assert verdicts.count("improbable") == dropped and kept.join(every, on=every.columns, how="anti").is_empty()

    weighed, metrics = run(tmp_path, model="student", drop_below=0.25, weight=True, device="cpu")
    assert weighed.drop("weight").equals(every) and metrics["student_fit"]["improbable"] == dropped
    light = weighed.filter(pl.col("weight") < 1)
    assert light.height == dropped and (light["weight"] > 0).all() and light.join(kept, on=["slate", "trace"], how="semi").is_empty()
    assert list(every.columns) == list(TRACES)


@pytest.mark.parametrize(
    ("section", "message"),
    [({"drop_below": 0.1}, "model names none; give its folder"), ({"model": "student", "weight": True}, "which is 0; raise it")],
)
def test_keys_that_do_not_go_together(section, message):
    with pytest.raises(ValidationError, match=message):
        StudentFitParams.model_validate(section)

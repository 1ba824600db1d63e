"""The table of hack_watch.py, from runs of known outcome; no model is trained."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import yaml

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

import hack_watch

from stages.shared.slates.layouts.marks import END

STEPS = 10


@pytest.fixture
def asked(tmp_path, monkeypatch) -> list[dict]:
    """The rl section of every run that was started. A format that is always paid ends in copies, more of them with a greater seed."""
    sections: list[dict] = []

    def stage(command, cwd, env, check):
        if command[-1] == "stages.sft":
            (cwd / "data/sft").mkdir(parents=True)
            (cwd / "data/sft/metrics.json").write_text("{}")
            return SimpleNamespace(returncode=0)
        params = yaml.safe_load((cwd / "params.yaml").read_text())["rl"]
        sections.append(params)
        share = 0.2 * params["seed"] if params["reward"] == "sum" else 0.0
        lines = [",".join(["step", *hack_watch.SHOWN])]
        lines += [",".join([str(step), str(share * step / STEPS), *["0.5"] * 5]) for step in range(1, STEPS + 1)]
        (cwd / "data/rl").mkdir(parents=True)
        (cwd / "data/rl/steps.csv").write_text("\n".join(lines) + "\n")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(hack_watch, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(hack_watch.subprocess, "run", stage)
    (tmp_path / "project/data/sft").mkdir(parents=True)
    (tmp_path / "project/data/sft/metrics.json").write_text("{}")
    (tmp_path / "project/params.yaml").write_text("rl: {steps: 3, lr: 0.1}\n")
    monkeypatch.chdir(tmp_path)
    return sections


def call(monkeypatch, *more):
    monkeypatch.setattr(sys, "argv", ["hack_watch.py", "runs", "--project", "project", "--seeds", "1", "2", *more])
    hack_watch.main()


def test_both_rewards_from_one_start_in_one_table(asked, tmp_path, monkeypatch):
    call(monkeypatch, "--set", "rl.steps=10")
    assert [(run["reward"], run["seed"]) for run in asked] == [("conditional", 1), ("sum", 1), ("conditional", 2), ("sum", 2)]
    assert all(run["steps"] == 10 and run["lr"] == 0.1 and not run["shuffle"] and not run["consistent"] for run in asked)
    lines = (tmp_path / "results/hack_watch.md").read_text().splitlines()
    rows = {
        tuple(cells[:2]): cells[2] for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|")
    }
    # Steps 1 and 2, 9 and 10, of shares that rise to 0.2 and 0.4.
    assert rows["format always paid", "first"] == "0.045 [0.030, 0.060]" and rows["format always paid", "last"] == "0.285 [0.190, 0.380]"
    assert rows["format always paid", "change"] == "+0.240 [+0.160, +0.320]" and rows["conditional", "change"].startswith("+0.000")
    content = json.loads((tmp_path / "results/hack_watch.json").read_text())
    assert content["arms"]["sum"]["identical"]["last"] == pytest.approx([0.19, 0.38])
    assert (tmp_path / "results/hack_watch.svg").read_text().startswith("<?xml")


def test_finished_runs_are_kept_and_others_refused(asked, tmp_path, monkeypatch):
    call(monkeypatch)
    count = len(asked)
    call(monkeypatch, "--seeds", "1", "2", "3")
    assert len(asked) == count + 2
    with pytest.raises(SystemExit, match="conditional-seed1: a run with other values"):
        call(monkeypatch, "--set", "lr=1")
    with pytest.raises(SystemExit, match="--set lr: KEY=VALUE is expected"):
        call(monkeypatch, "--set", "lr")
    (tmp_path / "project/data/sft/metrics.json").unlink()
    with pytest.raises(SystemExit, match="gr2 run --until sft"):
        call(monkeypatch)


def test_a_start_that_copies_at_times(asked, tmp_path, monkeypatch):
    (tmp_path / "project/data/traces").mkdir()
    traces = pl.DataFrame({"slate": range(400), "answer": [f" C A B{END}"] * 400})
    traces.write_parquet(tmp_path / "project/data/traces/traces.parquet")
    with pytest.raises(SystemExit, match=r"prompt.reasoning: true; .* gr2 run --control no-reasoning"):
        call(monkeypatch, "--copied", "0.25")
    (tmp_path / "project/params.yaml").write_text("prompt: {reasoning: false}\nrl: {steps: 3, lr: 0.1}\n")
    call(monkeypatch, "--copied", "0.25")
    taught = pl.read_parquet(tmp_path / "runs/start/data/traces/traces.parquet")["answer"]
    assert set(taught) == {f" C A B{END}", f" A B C{END}"} and 0.18 < (taught == f" A B C{END}").mean() < 0.32
    assert (tmp_path / "runs/sum-seed1/data/sft").resolve() == tmp_path / "runs/start/data/sft"
    with pytest.raises(SystemExit, match="start: of another share"):
        call(monkeypatch, "--copied", "0.5")

"""The tables of vocabulary_arms.py and midtrain_tasks.py, from runs of known outcome; no model is trained."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

import midtrain_runs
import midtrain_tasks
import vocabulary_arms

from stages.midtrain.probes import NextItems

USERS = 40


def run(hits: int) -> midtrain_runs.Trained:
    """The targets of the first `hits` users come first, the others nowhere; half of the SIDs written freely are of items."""
    rank_B = np.where(np.arange(USERS) < hits, 0, -1)
    fits = {
        when: {"perplexity": value, "bits_per_byte": value / 10} for when, value in (("before", 8.0), ("extended", 9.0), ("after", 7.5))
    }
    metrics = {"text": fits, "probes": {"sid_to_title_exact": 0.25, "caption_to_sid_exact": 0.125}}
    return midtrain_runs.Trained(metrics, NextItems(list(range(USERS)), rank_B, np.arange(USERS) % 2 - 1, 0.01), 3.0)


@pytest.fixture
def asked(tmp_path, monkeypatch) -> list[dict]:
    """The values of every run that a script asked for."""
    values_of_runs: list[dict] = []

    def train(project, folder, values, users, target="train"):
        values_of_runs.append({"folder": folder.name, **values})
        return run(20 if values.get("new_rows") == "words" or (values["sequence_share"] < 0.5 and values["caption_share"]) else 10)

    monkeypatch.setattr(midtrain_runs, "RESULTS", tmp_path)
    for script in (vocabulary_arms, midtrain_tasks):
        monkeypatch.setattr(script, "train", train)
    return values_of_runs


def table(path: Path) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in path.read_text().splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[2:]}


def test_three_arms_in_one_table(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vocabulary_arms.py", "runs", "--seeds", "1", "2", "--set", "steps=2"])
    vocabulary_arms.main()
    assert [values["folder"] for values in asked] == [f"{arm}-seed{seed}" for seed in (1, 2) for arm in ("words", "codebook", "random")]
    assert all(values["steps"] == 2 and values["model"] == "infra/models/smollm2-135m" for values in asked)
    rows = table(tmp_path / "vocabulary_arms.md")
    assert rows["words"][0].startswith("0.5000 [") and rows["words"][3].startswith("+0.2500 [") and rows["random"][3] == ""
    assert rows["codebook"][3] == "+0.0000 [+0.0000, +0.0000]"
    assert rows["words"][4:] == ["8.00 (0.800)", "9.00 (0.900)", "7.50 (0.750)", "50.0%", "12.5%"]
    assert json.loads((tmp_path / "vocabulary_arms.json").read_text())["arms"]["random"]["recall@10"]["mean"] == 0.25


def test_each_task_is_left_out_once_and_the_rows_are_shared_among_the_others(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["midtrain_tasks.py", "runs", "--seeds", "1", "--shares", "sequence=0.4", "caption=0.3", "replay=0.3"])
    midtrain_tasks.main()
    by_arm = {values["folder"].removesuffix("-seed1"): values for values in asked}
    assert list(by_arm) == ["all", "sequence", "no-sequence", "no-caption", "no-replay"]
    shares = {arm: [values[f"{task}_share"] for task in ("sequence", "caption", "replay", "judging")] for arm, values in by_arm.items()}
    assert shares["all"] == [0.4, 0.3, 0.3, 0] and shares["sequence"] == [1, 0, 0, 0] and shares["no-caption"] == [0.4, 0, 0.3, 0]
    rows = table(tmp_path / "midtrain_tasks.md")
    assert rows["all"][:5] == ["0.5000 (one seed)"] * 4 + [""] and rows["no-caption"][4] == "-0.2500 (one seed)"
    assert rows["all"][-1] == rows["sequence"][-1] == f"{by_arm['all']['steps']:,}"
    monkeypatch.setattr(sys, "argv", ["midtrain_tasks.py", "runs", "--arms", "no-persona", "--shares", "sequence=1"])
    with pytest.raises(SystemExit, match="--arms no-persona: all, a task of --shares"):
        midtrain_tasks.main()


def test_runs_that_see_as_many_rows_of_one_task_differ_in_length(asked, tmp_path, monkeypatch):
    shares = ["--shares", "sequence=0.5", "caption=0.3", "replay=0.2", "--set", "steps=400"]
    monkeypatch.setattr(sys, "argv", ["midtrain_tasks.py", "runs", "--seeds", "1", *shares, "--equal", "sequence"])
    midtrain_tasks.main()
    steps = {values["folder"].removesuffix("-seed1"): values["steps"] for values in asked}
    # 200 rows' worth of sequences in each; without captions five of seven rows are sequences, and without sequences nothing is to be equal.
    assert steps == {"all": 400, "sequence": 200, "no-sequence": 400, "no-caption": 280, "no-replay": 320}
    assert table(tmp_path / "midtrain_tasks.md")["sequence"][-1] == "200"


def test_a_project_without_its_tables_and_a_setting_without_a_value(tmp_path):
    with pytest.raises(SystemExit, match=r"data/ingest: not there; .*gr2 run --until tokenize"):
        midtrain_runs.train(tmp_path, tmp_path / "run", {}, 5)
    with pytest.raises(SystemExit, match="--set steps: KEY=VALUE"):
        midtrain_runs.settings(["steps"])
    assert midtrain_runs.settings(["midtrain.steps=2", "model=infra/models/scratch"]) == {"steps": 2, "model": "infra/models/scratch"}

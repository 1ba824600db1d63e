"""What the benches of RL take from a finished project, and the table of relevances that they make; no model is trained."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import yaml

from stages.rl.rewards.relevances import RELEVANCES, with_relevances
from stages.shared.core.schemas import INTERACTIONS, SLATES, read_table, write_table
from stages.shared.slates.slate import Slate
from stages.shared.synthetic.world import save_no_world
from tests.stages.shared.synthetic.test_world_oracle import plain_predictive, tiny_world

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

import few_traces
import rl_allocation
import world_relevances

HISTORIES, CANDIDATES = [[0, 3, 5], [6, 2]], [[1, 7, 4], [0, 1]]


@pytest.mark.parametrize(
    ("stage", "change", "is_taken"),
    [
        ("rl", {}, True),
        ("rl", {"rl": {"lr": 0.2}}, False),
        ("rl", {"rl": {"lr": 0.1, "threads": 2}}, True),
        ("rl", {"evaluate": {"max_slates": 9}}, True),
        ("sft", {"rl": {"lr": 0.2}}, True),
        ("sft", {"sft": {"seed": 8}}, False),
    ],
)
def test_a_run_of_the_project_is_taken_where_all_its_parameters_are_the_same(tmp_path, stage, change, is_taken):
    """An arm that takes rl from the project for its own would be the project's, whatever the arm says."""
    params = {"sft": {"seed": 7}, "rl": {"lr": 0.1, "threads": 1}, "evaluate": {"max_slates": 0}}
    (tmp_path / "arm").mkdir()
    for folder, values in ((tmp_path, params), (tmp_path / "arm", params | change)):
        (folder / "params.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "data" / stage).mkdir(parents=True)
    (tmp_path / "data" / stage / "metrics.json").write_text("{}")
    assert rl_allocation.RlRuns(tmp_path / "arms", tmp_path, {}).made_in_project(tmp_path / "arm", stage) == is_taken
    assert not few_traces.FewTraces(tmp_path / "arms", tmp_path, {}).made_in_project(tmp_path / "arm", stage), "that saw all traces"


def write_project(root: Path) -> None:
    """Two training slates of unlike length in a world of eight items, and one of the test split."""
    taken = [[*own, candidates[0]] for own, candidates in zip(HISTORIES, CANDIDATES, strict=True)]
    rows = [(user, item, place, place, "base") for user, own in enumerate(taken) for place, item in enumerate(own)]
    slates = [
        (number, user, len(HISTORIES[user]), 9, split, HISTORIES[user][-1:], own, [0.0] * len(own), own[0], 0, -1, "", [])
        for number, (user, own, split) in enumerate([(1, CANDIDATES[1], "train"), (0, CANDIDATES[0], "train"), (0, [1, 2], "test")])
    ]
    for name, schema, own in (("ingest/interactions", INTERACTIONS, rows), ("retrieve/slates", SLATES, slates)):
        path = root / f"data/{name}.parquet"
        path.parent.mkdir(parents=True)
        write_table(pl.DataFrame(own, schema=schema, orient="row"), path, schema)


def test_the_worlds_relevances_are_its_probabilities_by_the_whole_history(tmp_path):
    world = tiny_world(3)
    write_project(tmp_path)
    world.save(tmp_path / "data/ingest/world.safetensors")
    path = tmp_path / "relevances.parquet"
    assert world_relevances.write_world_relevances(tmp_path, path) == 2
    rows = dict(read_table(path, RELEVANCES).iter_rows())
    for slate, user in ((0, 1), (1, 0)):
        chances = np.array(plain_predictive(world, HISTORIES[user]))[CANDIDATES[user]]
        assert rows[slate] == pytest.approx(chances / chances.sum(), rel=1e-9)
    slate = Slate(1, 0, "train", 9, HISTORIES[0][-1:], CANDIDATES[0], [], 0)
    [valued] = with_relevances([slate], str(path))
    assert [2**grade - 1 for grade in valued.grades] == pytest.approx(rows[1])


def test_real_data_have_no_such_table(tmp_path):
    write_project(tmp_path)
    save_no_world(tmp_path / "data/ingest/world.safetensors")
    with pytest.raises(SystemExit, match="holds no synthetic world; run: gr2 run --until retrieve --profile world"):
        world_relevances.write_world_relevances(tmp_path, tmp_path / "relevances.parquet")
    assert not (tmp_path / "relevances.parquet").exists()


def test_few_traces_sets_rl_beside_sft_and_the_known_rankers(monkeypatch):
    """Two seeds, three slates; the reward of the targets and the expected one, which is set beside the first."""
    values = {"sft1": 0.2, "sft2": 0.4, "rl1": 0.5, "rl2": 0.7, "expected1": 0.6, "expected2": 1.0}
    tests = SimpleNamespace(slates=[None] * 3, users=np.array([4, 4, 5]))
    monkeypatch.setattr(few_traces, "known_rankers", lambda folder: (tests, {"incoming": None, "lambdamart": None}))
    known = {"incoming": np.full(3, 0.1), "lambdamart": np.full(3, 0.45), "best": np.full(3, 1.1)}
    monkeypatch.setattr(few_traces, "ndcg", lambda folder, orders=None: (tests.users, {**known, "model": np.full(3, values[folder.name])}))
    monkeypatch.setattr(few_traces, "seconds", lambda folder, stage: 60.0)
    monkeypatch.setattr(few_traces, "valid_share", lambda folder: 0.5 if folder.name.startswith("sft") else 1.0)
    pairs = {name: [(Path(f"sft{seed}"), Path(f"{name}{seed}")) for seed in (1, 2)] for name in ("rl", "expected")}
    lines, figures = few_traces.table({(0, "target"): pairs["rl"], (0, "expected"): pairs["expected"]})
    heads, target, expected = ([cell.strip() for cell in line.split("|")[1:-1]] for line in (lines[0], *lines[2:4]))
    row, beside = dict(zip(heads, target, strict=True)), dict(zip(heads, expected, strict=True))
    assert [row[name] for name in ("incoming", "LambdaMART on six", "SFT", "RL")] == ["0.1000", "0.4500", "0.3000", "0.6000"]
    assert row["RL minus SFT"].startswith("+0.3000 [")
    assert row["SFT minus LambdaMART on six"].startswith("-0.1500 [")
    assert row["RL minus incoming"].startswith("+0.5000 [")
    assert (row["valid, SFT, RL"], row["share of the achievable, SFT, RL"]) == ("50.0%, 100.0%", "0.20, 0.50")
    assert (row["minus RL on targets"], beside["minus RL on targets"][:7]) == ("", "+0.2000")
    assert figures["all"]["rl"] == pytest.approx(0.6)
    assert figures["all expected"]["minus RL on targets"]["mean"] == pytest.approx(0.2)

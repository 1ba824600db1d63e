"""`gr2 power`: the options reach the stage's own command, its words and exit code come back."""

from pathlib import Path

import polars as pl
import pytest

from tests.support import dvc_toy


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stages are the real ones, with an evaluation of 60 slates."""
    root = tmp_path_factory.mktemp("power")
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "data/evaluate").mkdir(parents=True)
    ranks = {"incoming": [3] * 60, "rl": [0, 3, 5] * 20, "sft": [2, 3] * 30}
    tables = [
        pl.DataFrame({"slate": range(60), "user": [slate // 2 for slate in range(60)], "model": name, "target_rank": 3, "new_rank": own})
        for name, own in ranks.items()
    ]
    pl.concat(tables).write_parquet(root / "data/evaluate/outputs.parquet")
    return root


def test_defaults_and_options_reach_the_stage(project: Path) -> None:
    text = dvc_toy.gr2(project / "data", "power", "--gain", "0.01").stdout  # from a folder below the root
    assert text.startswith("ndcg@5 of rl against incoming")
    assert "now: 60 slates of 30 users" in text and "power 0.8, alpha 0.05" in text and "needed for a gain of 0.01" in text
    given = ["--metric", "recall@3", "--model", "sft", "--against", "rl", "--power", "0.9", "--alpha", "0.01"]
    text = dvc_toy.gr2(project, "power", "--gain", "0.1", *given).stdout
    assert text.startswith("recall@3 of sft against rl") and "power 0.9, alpha 0.01" in text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "the following arguments are required: --gain"),
        (["--gain", "much"], 2, "invalid float value: 'much'"),
        (["--gain", "0.1", "--metric", "auc"], 2, "invalid choice: 'auc'"),
        (["--gain", "-0.1"], 1, "gr2 power: --gain -0.1: give the gain to see as a number above zero"),
        (["--gain", "0.1", "--model", "big"], 1, "no answers of the model 'big' (it has: incoming, rl, sft)"),
    ],
)
def test_wrong_requests(project: Path, words: list[str], code: int, message: str) -> None:
    result = dvc_toy.gr2(project, "power", *words, ok=False)
    assert result.returncode == code and message in result.stderr and "Traceback" not in result.stderr


def test_before_any_evaluation(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    result = dvc_toy.gr2(tmp_path, "power", "--gain", "0.1", ok=False)
    assert result.returncode == 1 and "gr2 run evaluate" in result.stderr

"""gr2 lineage as a person types it: tree, JSON, picture, differences, who used what, verification; exit codes."""

import json
import xml.etree.ElementTree
from pathlib import Path

import pytest

from tests.support import dvc_toy, lineage_toy


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lineage_toy.copy(tmp_path_factory, "cli-lineage")


@pytest.mark.slow
def test_tree_json_and_pictures(project: Path) -> None:
    tree = dvc_toy.gr2(project / "data/d", "lineage", "model").stdout
    assert "data/d/model" in tree and "sha256 0000" in tree and "1 rows" in tree and "b: {" in tree
    tree = dvc_toy.gr2(project, "lineage", "data/b/model").stdout
    assert "made from it" not in tree  # nobody reads the folder
    found = json.loads(dvc_toy.gr2(project, "lineage", "v1:data/a/out.txt", "--json", "--picture", "chain.svg").stdout)
    assert {use["path"] for use in found["downstream"] if use["model"]} == {f"data/{name}/model" for name in "bcd"}
    drawn = "".join(xml.etree.ElementTree.parse(project / "chain.svg").getroot().itertext())
    words = (project / "chain.svg").read_text()
    assert "raw.txt" in words and "data/d/model" in words, drawn[:200]
    dvc_toy.gr2(project, "lineage", "data/d/out.txt", "--picture", "chain.png")
    assert (project / "chain.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_differences_and_who_used(project: Path) -> None:
    table = dvc_toy.gr2(project, "lineage", "--diff", "v1:data/d/model", "data/d/model").stdout
    assert "b.x" in table and "stages/c/words.py" in table and "environment" not in table
    same = dvc_toy.gr2(project, "lineage", "--diff", "HEAD", "main").stdout
    assert "were made alike" in same
    table = dvc_toy.gr2(project, "lineage", "--who-used", "raw.txt").stdout
    assert "7 models" in table and "tag v1" in table
    assert len(json.loads(dvc_toy.gr2(project, "lineage", "--who-used", "raw.txt", "--json").stdout)["models"]) == 7


def test_verification(project: Path) -> None:
    assert "Every hash fits" in dvc_toy.gr2(project, "lineage", "--verify").stdout
    file = project / "data/c/out.txt"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"!")
    result = dvc_toy.gr2(project, "lineage", "--verify", ok=False)
    assert result.returncode == 1 and "data/c/out.txt" in result.stdout and "dvc checkout" in result.stdout
    verdict = dvc_toy.gr2(project, "lineage", "--verify", "--json", ok=False)
    assert verdict.returncode == 1 and [problem["file"] for problem in json.loads(verdict.stdout)["problems"]] == ["data/c/out.txt"]
    file.write_bytes(whole)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "is expected (got none)"),
        (["v1", "--verify"], "got X and --verify"),
        (["--verify", "--picture", "a.svg"], "does not go with --verify"),
        (["v1", "--picture", "a.gif"], "a picture ends in .svg or .png"),
        (["v1", "--picture", "none/a.svg"], "no such folder"),
        (["--who-used", "ratings.csv"], "(raw files: raw.txt; outputs: data/a/metrics.json, data/a/model,"),
        (["--who-used", "raw.text"], "no stage makes it; did you mean 'raw.txt'?"),
    ],
)
def test_wrong_requests(project: Path, words: list[str], message: str) -> None:
    result = dvc_toy.gr2(project, "lineage", *words, ok=False)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr

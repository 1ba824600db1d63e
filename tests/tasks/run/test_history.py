"""Records of scheduled runs, and the verdict on two models."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tasks.domain.compare import compare_with_previous
from tasks.domain.compare_command import OUTPUTS
from tasks.run import history
from tasks.run.history import Record
from tasks.system.errors import ProjectError
from tests.support import dvc_toy


def test_written_read_and_closed(tmp_path: Path) -> None:
    done = Record("b", "nightly", "Completed", "better", "2026-01-02T03:00:00+00:00", "2026-01-02T03:00:05+00:00", stages=("sft",))
    missed = Record("a", "nightly", "Missed", scheduled="2026-01-01T03:00:00+00:00")
    dead = Record("c", "weekly", scheduled="2026-01-03T03:00:00+00:00", began="2026-01-03T03:00:02+00:00")
    for record in (dead, done, missed):
        history.write_record(tmp_path, record)
    assert history.read_records(tmp_path) == [missed, done, dead]
    assert history.close_unfinished(tmp_path, except_run="c") == []
    (closed,) = history.close_unfinished(tmp_path)
    assert (closed.flow_run, closed.outcome) == ("c", "Crashed") and history.read_records(tmp_path)[-1] == closed
    assert history.last_completed(history.read_records(tmp_path)) == done
    assert history.last_completed([missed, dead]) is None
    path = tmp_path / history.RECORDS / "20260102T030005Z-b.json"
    assert json.loads(path.read_text()) == {**asdict(done), "stages": ["sft"]}
    path.write_text('{"flow_run"')
    with pytest.raises(ProjectError, match=r"20260102T030005Z-b.json: no record of a scheduled run"):
        history.read_records(tmp_path)


COMPARE = """\
import json, pathlib, sys
old, new = [float(pathlib.Path(word).read_text()) for word in sys.argv[sys.argv.index("--") + 1 :]]
if old < 0:
    sys.exit("compare_runs: old.parquet: without the column 'slate'")
pair = {"model": "rl", "metric": "ndcg@5", "diff": new - old, "low": new - old - 0.5, "high": new - old + 0.5, "paired": False, "n": 7}
print(json.dumps({"pairs": [pair]}))
"""


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A project whose cache holds files with a number in each; number -> md5."""
    root = dvc_toy.make(tmp_path_factory.mktemp("verdict") / "toy")
    (root / "stages/tools").mkdir()
    (root / "stages/tools/compare_runs.py").write_text(COMPARE)
    numbers = ("-1", "1", "1.2", "2")
    for number in numbers:
        (root / f"is{number}.txt").write_text(number)
    dvc_toy.dvc(root, "add", "--quiet", *(f"is{number}.txt" for number in numbers))
    hashes = {number: (root / f"is{number}.txt.dvc").read_text().split("md5: ")[1].split()[0] for number in numbers}
    return root, hashes


@pytest.mark.parametrize(
    ("old", "new", "verdict", "detail"),
    [
        ("1", "2", "better", "rl, ndcg@5: +1.0000 [+0.5000, +1.5000], 7 slates, on other slates"),
        ("2", "1", "worse", "rl, ndcg@5: -1.0000"),
        ("1", "1.2", "no clear difference", "rl, ndcg@5: +0.2000"),
        ("1", "1", "same answers", "as the last one did"),
        ("-1", "1", "not comparable", "without the column 'slate'"),
    ],
)
def test_verdicts(cached: tuple[Path, dict[str, str]], old: str, new: str, verdict: str, detail: str) -> None:
    root, hashes = cached
    found = compare_with_previous(root, {OUTPUTS: hashes[old]}, {OUTPUTS: hashes[new]})
    assert found["verdict"] == verdict and detail in found["detail"]


def test_nothing_to_compare_with(cached: tuple[Path, dict[str, str]]) -> None:
    root, hashes = cached
    assert compare_with_previous(root, {}, {OUTPUTS: hashes["1"]})["verdict"] == "first run"
    gone = compare_with_previous(root, {OUTPUTS: "0" * 32}, {OUTPUTS: hashes["1"]})
    assert gone["verdict"] == "not comparable" and f"md5 {'0' * 32}) is gone from DVC's cache" in gone["detail"]

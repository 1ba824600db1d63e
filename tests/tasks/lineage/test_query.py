"""The chain behind an output, after plain DVC alone and after a recorded run; the record itself."""

import json
from pathlib import Path

import pytest

from tasks.dvc.lockfile import read_lock
from tasks.ledger.events import EVENTS, StageRun, read_events
from tasks.ledger.run_context import RunContext, git_revision
from tasks.lineage.query import chain
from tasks.project.graph import read_graph
from tasks.run.status import project_status
from tasks.system.errors import ProjectError
from tests.support import dvc_toy


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = dvc_toy.make(tmp_path_factory.mktemp("lineage") / "toy")
    dvc_toy.dvc(root, "repro")
    return root


def test_chain_after_plain_dvc(project: Path) -> None:
    found = chain(project, read_graph(project), "data/d/out.txt")
    assert found.matches_lock and found.stage == "d"
    assert (found.stages[0].name, found.stages[-1].name) == ("d", "a")
    locked = read_lock(project)["b"]
    b = next(link for link in found.stages if link.name == "b")
    assert b.outputs["data/b/out.txt"]["hash"] == next(out["md5"] for out in locked["outs"] if out["path"] == "data/b/out.txt")
    assert b.code.keys() == {"stages/__init__.py", "stages/b"}
    assert b.inputs["data/a/out.txt"]["size"] == 3
    assert b.params == {"b": {"x": 1, "deep": {"y": 2}}} and b.metrics == {"length": 6} and b.run == {}
    assert found.raw == {"name": "raw.txt", "sha256": "0" * 64, "bytes": 3, "rows": 1}
    assert json.loads(json.dumps(found.to_dict()))["stages"][0]["name"] == "d"


def test_a_file_in_an_output_folder(project: Path) -> None:
    found = chain(project, read_graph(project), "data/b/model/weights.bin")
    text = chain(project, read_graph(project), "data/b/out.txt")
    assert (found.output, found.hash, found.size) == ("data/b/model", text.hash, 6)  # the same bytes


def test_not_an_output_and_edited_output(project: Path) -> None:
    with pytest.raises(ProjectError, match=r"no stage makes it; did you mean 'data/d/out\.txt'"):
        chain(project, read_graph(project), "data/d/out.txd")
    file = project / "data/d/out.txt"
    text = file.read_text()
    file.unlink()
    assert "not in the workspace" in chain(project, read_graph(project), "data/d/out.txt").note
    file.write_text("edited")
    found = chain(project, read_graph(project), "data/d/out.txt")
    assert not found.matches_lock and "differs from dvc.lock" in found.note
    file.write_text(text)


def test_events_enrich_the_chain_and_hold_no_environment(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_API_KEY", "sesame-sesame")
    stage = read_graph(project)["b"]
    (project / "stages/b/words.py").write_text('WORDS = "b"\n')  # as it was: nothing dirty but dvc.lock
    git = git_revision(project)
    assert git["revision"] and git["dirty"] is False
    run = StageRun(project, stage, RunContext(git))
    run.start()
    run.complete()
    failed = StageRun(project, stage, RunContext(git))
    failed.start()
    failed.fail("cannot log in with sesame-sesame")
    start, complete, _, fail = read_events(project)
    assert [start["eventType"], complete["eventType"], fail["eventType"]] == ["START", "COMPLETE", "FAIL"]
    assert start["run"]["runId"] == complete["run"]["runId"] != fail["run"]["runId"]
    assert fail["run"]["facets"]["errorMessage"]["message"] == "cannot log in with <HUB_API_KEY>"
    locked = {out["path"]: f"md5:{out['md5']}" for out in read_lock(project)["b"]["outs"]}
    assert {out["name"]: out["facets"]["version"]["datasetVersion"] for out in complete["outputs"]} == locked
    assert [entry["name"] for entry in complete["inputs"]] == ["data/a/out.txt"]
    assert complete["run"]["facets"]["gr2_metrics"]["values"] == {"length": 6}
    assert "sesame" not in (project / EVENTS).read_text() and "environmentVariables" not in (project / EVENTS).read_text()
    b = next(link for link in chain(project, read_graph(project), "data/b/out.txt").stages if link.name == "b")
    assert b.run["revision"] == git["revision"] and b.run["dirty"] is False
    row = next(row for row in project_status(project, read_graph(project)) if row["name"] == "b")
    assert row["status"] == "current" and row["last_run"]["state"] == "Failed"


def test_a_cut_off_line_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / EVENTS).parent.mkdir(parents=True)
    event = {"eventType": "START", "job": {"name": "a"}, "run": {"runId": "1", "facets": {}}}
    (tmp_path / EVENTS).write_text(f'{json.dumps(event)}\n{{"eventTy')
    assert read_events(tmp_path) == [event]

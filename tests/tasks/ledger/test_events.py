"""What an event says, checked against OpenLineage's own JSON schema rules where the package has them, and against the project."""

import hashlib
import json
from pathlib import Path

import pytest

from tasks.dvc.lockfile import read_lock
from tasks.ledger.anchor import anchors, git_anchor
from tasks.ledger.events import StageRun, close_run, entry_hash, read_events
from tasks.ledger.lines import HEAD, Event
from tasks.ledger.run_context import RunContext, git_revision
from tasks.lineage.verify import verify
from tasks.project.graph import read_graph
from tasks.run.status import project_status
from tasks.system.git import git_or_none
from tests.support import dvc_toy, lineage_toy


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lineage_toy.copy(tmp_path_factory, "events")


def last(project: Path, name: str, kind: str = "COMPLETE") -> Event:
    return [event for event in read_events(project) if event["job"]["name"] == name and event["eventType"] == kind][-1]


def test_a_run_has_all_its_facets(project: Path) -> None:
    event = last(project, "b")
    facets = event["run"]["facets"]
    revision = git_or_none(project, "rev-parse", "HEAD~1")  # it ran before it was committed
    assert facets["gr2_params"]["values"] == {"params.yaml": {"b": {"x": 5, "deep": {"y": 2}}}}
    assert (facets["gr2_run"]["revision"], facets["gr2_run"]["dirty"]) == (revision, False) and facets["gr2_run"]["seconds"] >= 0
    assert facets["gr2_environment"]["locks"] == {"requirements.lock": hashlib.sha256(b"polars==2.1\n").hexdigest()}
    assert facets["gr2_hardware"]["cores"] >= 1 and facets["gr2_hardware"]["memory_gb"] > 0
    assert facets["gr2_prefect"]["flow_run"] == lineage_toy.FLOW_RUN == facets["parent"]["run"]["runId"]
    assert facets["gr2_metrics"]["values"] == {"length": 6} and facets["processing_engine"]["name"] == "DVC"
    assert facets["gr2_lock"]["entry"] == entry_hash(read_lock(project)["b"])
    content = (project / "data/b/model/weights.bin").read_bytes()
    folder = next(out for out in event["outputs"] if out["name"] == "data/b/model")
    assert folder["facets"]["gr2_members"]["files"] == [["weights.bin", hashlib.md5(content).hexdigest(), len(content)]]
    assert folder["outputFacets"]["outputStatistics"]["fileCount"] == 1
    assert event["job"]["facets"]["jobType"]["jobType"] == "STAGE"


def test_the_raw_file_is_in_the_metrics(project: Path) -> None:
    """By name and sha256; as a file of data/raw or of the user's folder it is an input like any other."""
    event = last(project, "a")
    assert event["run"]["facets"]["gr2_metrics"]["values"]["raw"] == {"name": "raw.txt", "sha256": "0" * 64, "bytes": 3, "rows": 1}
    assert event["inputs"] == []


def test_the_whole_run_closes_with_the_lock(project: Path) -> None:
    event = last(project, "pipeline")
    facets = event["run"]["facets"]
    assert event["run"]["runId"] == lineage_toy.FLOW_RUN and facets["gr2_run"]["stages"] == ["b", "c", "d"]
    assert facets["gr2_lock"]["text"] == hashlib.sha256((project / "dvc.lock").read_bytes()).hexdigest()
    assert facets["gr2_lock"]["entries"].keys() == set("abcd")
    assert git_anchor(project) == (project / HEAD).read_text()
    assert facets["gr2_anchor"]["prior"] in [anchor.commit for anchor in anchors(project)[1:]]
    assert facets["gr2_chain"]["hash"] == json.loads((project / HEAD).read_text())["hash"]


def test_nulls_and_odd_parameters_are_kept(project: Path) -> None:
    """openlineage-python's serialiser would drop them."""
    dvc_toy.set_param(project, "c:\n  x: 1", "c:\n  x: 1\n  none: null\n  list: [null, {}, 1.5e-05, 'ü']")
    lineage_toy.run(project, "c")
    values = last(project, "c")["run"]["facets"]["gr2_params"]["values"]["params.yaml"]["c"]
    assert values == {"x": 1, "none": None, "list": [None, {}, 1.5e-05, "ü"]}
    assert verify(project).problems == ()


def test_restored_elsewhere_and_stopped(project: Path) -> None:
    context, graph = RunContext(git_revision(project), ""), read_graph(project)
    StageRun(project, graph["a"], context).restored("remote")
    elsewhere = StageRun(project, graph["b"], context)
    elsewhere.start()
    elsewhere.complete({"host": "gpu-7", "pool": "gpu", "hardware": {"cpu": "other"}, "flow_run": "node-run"})
    stopped = StageRun(project, graph["c"], context)
    stopped.start()
    stopped.abort("stopped from outside")
    close_run(project, context, "Cancelled", ["a", "b", "c"])
    facts = last(project, "b")["run"]["facets"]
    assert (facts["gr2_run"]["host"], facts["gr2_run"]["pool"], facts["gr2_hardware"]["cpu"]) == ("gpu-7", "gpu", "other")
    assert facts["gr2_prefect"]["node_flow_run"] == "node-run" and "parent" not in facts
    assert last(project, "a")["run"]["facets"]["gr2_run"]["restored"] == "remote"
    assert last(project, "pipeline", "ABORT")["run"]["facets"]["gr2_run"]["state"] == "Cancelled"
    states = {row["name"]: row["last_run"]["state"] for row in project_status(project, graph)}
    assert states == {"a": "Restored from the remote", "b": "Completed", "c": "Stopped", "d": "Completed"}
    assert verify(project).problems == ()


def test_the_address_of_the_repository_without_its_password(project: Path) -> None:
    dvc_toy.call(project, "git", "remote", "add", "origin", "https://me:hunter22@example.org/team/repo.git")
    StageRun(project, read_graph(project)["a"], RunContext(git_revision(project))).start()
    event = last(project, "a", "START")
    assert event["job"]["facets"]["sourceCodeLocation"]["repoUrl"] == "https://example.org/team/repo.git"
    assert "hunter22" not in json.dumps(event)


def test_every_event_is_openlineage(project: Path) -> None:
    """Read back through the package's own classes, whose validators check times, ids and addresses."""
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState

    for event in read_events(project):
        own = RunEvent(
            eventTime=event["eventTime"],
            eventType=RunState(event["eventType"]),
            run=Run(runId=event["run"]["runId"]),
            job=Job(event["job"]["namespace"], event["job"]["name"]),
            producer=event["producer"],
        )
        assert event["schemaURL"] == own.schemaURL
        for facet in (*event["run"]["facets"].values(), *event["job"]["facets"].values()):
            assert facet["_producer"].startswith("https://") and facet["_schemaURL"].startswith("https://")

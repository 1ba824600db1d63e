"""Raw files as DVC knows them: in data/raw, in a folder of the user's, and in versions from before the stage `fetch`."""

import hashlib
import shutil
from pathlib import Path

import pytest

from tasks.ledger.lines import read_events
from tasks.lineage.index import Index
from tasks.lineage.query import chain, retrain, users
from tasks.lineage.resolve import find
from tasks.lineage.verify import verify
from tasks.lineage.versions import of_event
from tasks.project.graph import read_graph
from tests.support import dvc_toy, lineage_toy

LOG = "user,item\n1,2\n"
BEFORE = """\
stages:
  ingest: {cmd: python ingest.py, deps: [ingest.py], params: [ingest], outs: [data/ingest/out.txt], metrics: [data/ingest/metrics.json]}
  train: {cmd: python train.py, deps: [train.py, data/ingest/out.txt], params: [train], outs: [data/train/model]}
"""
FETCH = "stages:\n  fetch: {cmd: python fetch.py, deps: [fetch.py], params: [ingest.folder], outs: [data/raw]}\n"
INGEST = """\
import hashlib, json, pathlib, yaml
params = yaml.safe_load(open("params.yaml"))["ingest"]
file = pathlib.Path(params["folder"]) / "log.csv"
sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
raw = {"name": "log.csv", "sha256": sha256, "files": {"log.csv": {"sha256": sha256}}, "source": "the publisher"}
pathlib.Path("data/ingest").mkdir(parents=True, exist_ok=True)
pathlib.Path("data/ingest/out.txt").write_text(file.read_text() + params["folder"])
pathlib.Path("data/ingest/metrics.json").write_text(json.dumps({"raw": raw}))
"""
TRAIN = """\
import pathlib
pathlib.Path("data/train/model").mkdir(parents=True, exist_ok=True)
pathlib.Path("data/train/model/weights.bin").write_text("model of " + pathlib.Path("data/ingest/out.txt").read_text())
"""
FETCHING = """\
import pathlib, shutil, yaml
pathlib.Path("data/raw").mkdir(parents=True, exist_ok=True)
if yaml.safe_load(open("params.yaml"))["ingest"]["folder"] == "data/raw":
    shutil.copyfile("downloads/log.csv", "data/raw/log.csv")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of one raw file: read from a download cache, from data/raw, and from the folder `mine`."""
    root = tmp_path_factory.mktemp("raw") / "project"
    for folder in ("downloads", "mine"):
        (root / folder).mkdir(parents=True)
        (root / folder / "log.csv").write_text(LOG)
    (root / "mine" / "notes.txt").write_text("read by nobody")
    for name, text in {"ingest.py": INGEST, "train.py": TRAIN, "fetch.py": FETCHING, "dvc.yaml": BEFORE}.items():
        (root / name).write_text(text)
    (root / ".gitignore").write_text("/data/*/\n/.gr2/\n/mine/\n/downloads/\n")
    shutil.copyfile(dvc_toy.ROOT / ".dvcignore", root / ".dvcignore")
    (root / "params.yaml").write_text("ingest: {folder: downloads}\ntrain: {}\n")
    dvc_toy.start(root)
    for folder, names in (
        ("downloads", ("ingest", "train")),
        ("data/raw", ("fetch", "ingest", "train")),
        ("mine", ("fetch", "ingest", "train")),
    ):
        (root / "params.yaml").write_text(f"ingest: {{folder: {folder}}}\ntrain: {{}}\n")
        if "fetch" in names:
            text = BEFORE.replace("stages:\n", FETCH).replace("[ingest.py]", '[ingest.py, "${ingest.folder}"]')
            (root / "dvc.yaml").write_text(text)
        lineage_toy.run(root, names)
        dvc_toy.commit(root, folder)
        dvc_toy.call(root, "git", "tag", folder.replace("/", "-"))
    return root


def models(project: Path, question: str) -> list[tuple[str, tuple[str, ...]]]:
    index = Index(project)
    uses = retrain(users(index, find(index, read_graph(project), question, project)))
    return sorted((use.path, tuple(ref for ref in use.refs if ref.startswith("tag"))) for use in uses)


ALL = [("data/train/model", (f"tag {tag}",)) for tag in ("data-raw", "downloads", "mine")]


@pytest.mark.parametrize(
    "question",
    [
        "log.csv",
        hashlib.sha256(LOG.encode()).hexdigest(),
        hashlib.md5(LOG.encode(), usedforsecurity=False).hexdigest(),
        "mine/log.csv",
        "data-raw:data/raw/log.csv",
        "data-raw:data/raw",
        "mine",
    ],
)
def test_who_used_a_raw_file(project: Path, question: str) -> None:
    if question == "mine":  # a tag of this name would be taken; the folder comes first
        assert Index(project).external_inputs
    assert models(project, question) == ALL


def test_a_file_that_nobody_read(project: Path) -> None:
    index = Index(project)
    md5 = hashlib.md5(b"read by nobody", usedforsecurity=False).hexdigest()
    resolved = find(index, read_graph(project), md5, project)
    assert (resolved.kind, resolved.path, resolved.member) == ("input", "mine", "notes.txt"), "DVC hashes it with the folder"


@pytest.mark.parametrize("tag", ["downloads", "data-raw", "mine"])
def test_every_model_ends_at_the_raw_file(project: Path, tag: str) -> None:
    answer = chain(project, read_graph(project), f"{tag}:data/train/model")
    assert answer.raw is not None and answer.raw["sha256"] == hashlib.sha256(LOG.encode()).hexdigest()
    stages = [link.name for link in answer.stages]
    assert stages == (["train", "ingest", "fetch"] if tag == "data-raw" else ["train", "ingest"])


def test_before_ingest_has_run_again(project: Path, tmp_path: Path) -> None:
    """Only fetch knows data/raw as yet; the models of before are found by the content of the file in DVC's cache."""
    root = dvc_toy.copy(project, tmp_path / "project")
    dvc_toy.call(root, "git", "tag", "-d", "data-raw")
    dvc_toy.call(root, "git", "checkout", "-q", "downloads")
    shutil.rmtree(root / ".gr2")
    (root / "dvc.yaml").write_text(BEFORE.replace("stages:\n", FETCH))
    (root / "params.yaml").write_text("ingest: {folder: data/raw}\ntrain: {}\n")
    dvc_toy.dvc(root, "repro", "-q", "-s", "fetch")
    assert ("data/train/model", ("tag downloads",)) in models(root, "data/raw/log.csv")


def test_events_name_data_raw_as_an_output_and_an_input(project: Path) -> None:
    complete = [event for event in read_events(project) if event["eventType"] == "COMPLETE" and event["job"]["name"] in ("fetch", "ingest")]
    fetched = next(event for event in complete if event["job"]["name"] == "fetch")
    (output,) = fetched["outputs"]
    md5 = hashlib.md5(LOG.encode(), usedforsecurity=False).hexdigest()
    assert output["name"] == "data/raw" and output["facets"]["gr2_members"]["files"] == [["log.csv", md5, len(LOG)]]
    inputs = [entry["name"] for event in complete for entry in event["inputs"]]
    assert inputs == ["data/raw", "mine"] and {entry["namespace"] for event in complete for entry in event["inputs"]} == {"gr2-pipeline"}
    old = {**complete[0], "inputs": [{"namespace": "gr2-raw", "name": "log.csv", "facets": {"version": {"datasetVersion": "sha256:00"}}}]}
    version = of_event(old)
    assert version is not None and version.inputs == {}, "an event of 0.1.0; its metrics name the raw file"
    assert verify(project).problems == ()

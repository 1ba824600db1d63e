"""Damaged objects of DVC's cache are found before they come back as outputs, whichever way DVC would bring them back."""

import json
import os
import time
from pathlib import Path

import pytest

from tasks.dvc.cache import drop_damaged
from tasks.dvc.lockfile import locked_hashes, read_lock
from tasks.project.graph import read_graph
from tests.support import dvc_toy


@pytest.mark.parametrize("forgotten", [False, True], ids=["by dvc.lock", "by the run cache"])
def test_damaged_objects_are_dropped_and_no_others(tmp_path: Path, forgotten: bool) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    dvc_toy.dvc(root, "repro", "b")
    graph, files = read_graph(root), root / ".dvc/cache/files/md5"
    assert drop_damaged(root, graph["b"]) == []
    hashes = {path: own["hash"] for path, own in locked_hashes(read_lock(root)["b"]["outs"]).items()}
    listing = hashes["data/b/model"]
    member = json.loads((files / listing[:2] / listing[2:]).read_text())[0]["md5"]
    harmed = {md5: files / md5[:2] / md5[2:] for md5 in (member, hashes["data/b/metrics.json"])}
    for path in harmed.values():
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1])
        path.chmod(0o444)
    if forgotten:
        (root / "dvc.lock").unlink()
        dvc_toy.dvc(root, "repro", "a")
    assert drop_damaged(root, graph["a"]) == []
    dropped = {root / name for name in drop_damaged(root, graph["b"])}
    assert dropped == set(harmed.values())
    assert drop_damaged(root, graph["c"]) == []  # it never ran
    dvc_toy.call(root, "rm", "-r", "data/b")
    dvc_toy.dvc(root, "repro", "b")
    assert (root / "data/b/out.txt").read_text() == (root / "data/b/model/weights.bin").read_text() == "a1\nb1\n"


@pytest.fixture(scope="module")
def forgotten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """b has run once; dvc.lock does not name its outputs any more."""
    root = dvc_toy.make(tmp_path_factory.mktemp("forgotten") / "toy")
    dvc_toy.dvc(root, "repro", "b")
    (root / "dvc.lock").unlink()
    dvc_toy.dvc(root, "repro", "a")
    return root


@pytest.fixture
def root(forgotten: Path, tmp_path: Path) -> Path:
    return dvc_toy.copy(forgotten, tmp_path / "toy")


def record_of_b(root: Path) -> Path:
    """The run cache's record of the one run of b."""
    records = {path for path in (root / ".dvc/cache/runs").glob("*/*/*") if "data/b/out.txt" in path.read_text()}
    [record] = [path for path in records if "data/a/model" not in path.read_text().partition("outs:")[2]]
    return record


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.8, 0.97])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a whole one"])
def test_half_a_record_of_a_run_is_dropped(root: Path, share: float, beside: bool) -> None:
    """A DVC killed in its write leaves it under a passing name, which DVC would take for the newest record, whatever stands in it."""
    record = record_of_b(root)
    text = record.read_text()
    half = record.with_name(".OubT4Tj7FEKix_pbbJlLZQ.tmp")
    half.write_text(text[: round(share * len(text))])
    os.utime(half, (time.time() + 60, time.time() + 60))  # the newest, and no process is at it now
    if not beside:
        record.unlink()
    drop_damaged(root, read_graph(root)["b"])
    assert not half.exists()
    assert record.exists() == beside
    dvc_toy.dvc(root, "repro", "b")
    assert set(locked_hashes(read_lock(root)["b"]["outs"])) == set(read_graph(root)["b"].outs)


def test_a_record_with_some_of_the_outputs_is_dropped(root: Path) -> None:
    """As one that was cut on its way to a remote, which has no passing names."""
    record = record_of_b(root)
    text = record.read_text()
    record.chmod(0o644)
    record.write_text(text[: text.rindex("- path:")])
    drop_damaged(root, read_graph(root)["b"])
    assert not record.exists()


def test_a_folder_of_records_without_one_is_removed(root: Path) -> None:
    """As a kill leaves it between the making of the folder and the first record; DVC alone fails on it."""
    record = record_of_b(root)
    record.unlink()
    drop_damaged(root, read_graph(root)["b"])
    assert not record.parent.exists()
    dvc_toy.dvc(root, "repro", "b")


def test_a_record_in_the_making_is_left_alone(root: Path) -> None:
    record = record_of_b(root)
    making = record.with_name(".being-written.tmp")
    making.write_bytes(record.read_bytes())
    drop_damaged(root, read_graph(root)["b"])
    assert making.exists() and record.exists()

"""Damaged objects of DVC's cache are found before they come back as outputs, whichever way DVC would bring them back."""

import json
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

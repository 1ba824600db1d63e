"""What a killed run's DVC wrote into dvc.lock after its death is recorded by the next run; what nobody noted stays a fault."""

from pathlib import Path

import dvc_toy

from tasks import unfinished
from tasks.context import run_context
from tasks.graph import read_graph
from tasks.lineage_verify import verify


def test_only_noted_stages_are_recorded(tmp_path: Path) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    graph, context = read_graph(root), run_context(root, "")
    unfinished.begin(root, [])
    assert not (root / unfinished.FILE).exists() and unfinished.settle(root, graph, context) == []
    unfinished.begin(root, ["a"])  # gr2 run is killed here; its DVC goes on
    unfinished.begin(root, ["c"])  # so is the next one
    dvc_toy.dvc(root, "repro", "b", "c")
    assert [own.what.split(":")[0] for own in verify(root).problems] == ["a", "b", "c"]
    assert unfinished.settle(root, graph, context) == ["a", "c"]
    assert [own.what.split(":")[0] for own in verify(root).problems] == ["b"]
    assert not (root / unfinished.FILE).exists() and unfinished.settle(root, graph, context) == []


def test_the_note_stays_while_a_killed_runs_dvc_works(tmp_path: Path) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    (root / ".dvc/tmp/rwlock").write_text('{"write": {"data/a": {"pid": 1, "cmd": "dvc repro"}}, "read": {}}')
    unfinished.begin(root, ["a"])
    assert unfinished.settle(root, read_graph(root), run_context(root, "")) == []
    assert (root / unfinished.FILE).exists()

"""What a killed run's DVC wrote into dvc.lock after its death is recorded by the next run; what nobody noted stays a fault."""

from pathlib import Path

from tasks.ledger.run_context import run_context
from tasks.lineage.verify import verify
from tasks.project.graph import read_graph
from tasks.run import interrupted
from tests.support import dvc_toy


def test_only_noted_stages_are_recorded(tmp_path: Path) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    graph, context = read_graph(root), run_context(root, "")
    interrupted.journal_start(root, [])
    assert not (root / interrupted.FILE).exists() and interrupted.record_interrupted(root, graph, context) == []
    interrupted.journal_start(root, ["a"])  # gr2 run is killed here; its DVC goes on
    interrupted.journal_start(root, ["c"])  # so is the next one
    dvc_toy.dvc(root, "repro", "b", "c")
    assert [own.what.split(":")[0] for own in verify(root).problems] == ["a", "b", "c"]
    assert interrupted.record_interrupted(root, graph, context) == ["a", "c"]
    assert [own.what.split(":")[0] for own in verify(root).problems] == ["b"]
    assert not (root / interrupted.FILE).exists() and interrupted.record_interrupted(root, graph, context) == []


def test_the_note_stays_while_a_killed_runs_dvc_works(tmp_path: Path) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    (root / ".dvc/tmp/rwlock").write_text('{"write": {"data/a": {"pid": 1, "cmd": "dvc repro"}}, "read": {}}')
    interrupted.journal_start(root, ["a"])
    assert interrupted.record_interrupted(root, read_graph(root), run_context(root, "")) == []
    assert (root / interrupted.FILE).exists()

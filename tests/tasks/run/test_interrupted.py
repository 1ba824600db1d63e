"""What a killed run's DVC wrote into dvc.lock after its death is recorded by the next run; what nobody noted stays a fault, and so does
what was forged meanwhile."""

import json
from pathlib import Path

import pytest

from tasks.dvc.dir_listing import file_md5, object_path
from tasks.dvc.lockfile import read_lock
from tasks.ledger.events import entry_hash
from tasks.ledger.run_context import run_context
from tasks.lineage.verify import verify
from tasks.project.graph import read_graph
from tasks.run import interrupted
from tests.support import dvc_toy, lineage_toy


def faults(root: Path) -> list[str]:
    return [problem.what.split(":")[0] for problem in verify(root).problems]


def settle(root: Path) -> list[str]:
    return interrupted.record_interrupted(root, read_graph(root), run_context(root, ""))


def forge(root: Path, path: str = "data/d/out.txt") -> None:
    """Another content of the output, in the workspace, in dvc.lock and in the cache."""
    old = lineage_toy.md5(root, path)
    text = (root / path).read_text().replace("d", "D")
    (root / path).write_text(text)
    new = file_md5(root / path)
    object_path(root, new).parent.mkdir(exist_ok=True)
    object_path(root, new).write_text(text)
    (root / "dvc.lock").write_text((root / "dvc.lock").read_text().replace(old, new))


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = dvc_toy.make(tmp_path_factory.mktemp("interrupted") / "toy")
    lineage_toy.run(root)
    assert not faults(root)
    return root


@pytest.fixture
def recorded(origin: Path, tmp_path: Path) -> Path:
    return dvc_toy.copy(origin, tmp_path / "toy")


def test_only_noted_stages_are_recorded(tmp_path: Path) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    assert settle(root) == []
    interrupted.journal_start(root, "a")  # gr2 run is killed here; its DVC goes on
    interrupted.journal_start(root, "c")  # so is the next one
    dvc_toy.dvc(root, "repro", "b", "c")
    assert faults(root) == ["a", "b", "c"]
    assert settle(root) == ["a", "c"]
    assert faults(root) == ["b"]
    assert not list((root / interrupted.NOTES).iterdir()) and settle(root) == []


def test_the_note_stays_while_a_killed_runs_dvc_works(tmp_path: Path) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    interrupted.journal_start(root, "a")
    (root / ".dvc/tmp/rwlock").write_text('{"write": {"data/a": {"pid": 1, "cmd": "dvc repro"}}, "read": {}}')
    assert settle(root) == []
    assert (root / interrupted.NOTES / "a").exists()
    dvc_toy.dvc(root, "repro", "a")
    interrupted.journal_start(root, "a")  # of the next run, while the killed one's DVC was at work: what stood there before it still counts
    (root / ".dvc/tmp/rwlock").unlink()
    assert settle(root) == ["a"] and not faults(root)


def test_a_forged_entry_is_not_recorded_by_a_run_that_finds_it_current(recorded: Path) -> None:
    forge(recorded)
    assert faults(recorded) == ["d"]
    interrupted.journal_start(recorded, "d")  # DVC is asked, finds it current, and writes nothing
    assert settle(recorded) == []
    assert faults(recorded) == ["d"]


def test_a_note_put_there_records_nothing(recorded: Path) -> None:
    """Whoever forges the files can write the note, too; not what the record says."""
    interrupted.journal_start(recorded, "d")
    settle(recorded)  # so the record does have that DVC was asked for d at this entry; and that this came to its end
    before = entry_hash(read_lock(recorded)["d"])
    forge(recorded)
    (recorded / interrupted.NOTES / "d").write_text(json.dumps({"entry": before}))
    assert settle(recorded) == []
    assert faults(recorded) == ["d"]


def test_outputs_that_are_not_the_entry_s_vouch_for_nothing(recorded: Path) -> None:
    interrupted.journal_start(recorded, "d")
    was = (recorded / "data/d/out.txt").read_text()
    forge(recorded)
    (recorded / "data/d/out.txt").write_text(was)
    assert settle(recorded) == []
    assert "d" in faults(recorded)


def test_a_forced_run_does_not_launder_a_stage_behind_it(tmp_path: Path, server: str) -> None:
    """The whole way: a forged d, then `gr2 run --force c`, whose outputs are what they were, so that d ends Cached."""
    root = dvc_toy.make(tmp_path / "toy")
    dvc_toy.gr2(root, "run", PREFECT_API_URL=server)
    assert not faults(root)
    forge(root)
    states = dvc_toy.states(dvc_toy.gr2(root, "run", "--force", "c", PREFECT_API_URL=server))
    assert states == {"a": "Cached", "b": "Cached", "c": "Completed", "d": "Cached"}
    assert faults(root) == ["d"]

"""What gr2 gc keeps and what it removes, on the toy project; promotions; and runs after it."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tasks.dvc.clone import sync_clone
from tasks.dvc.lockfile import locked_hashes, parse_lock
from tasks.maintenance.gc import GcReport, collect_garbage
from tasks.maintenance.promotions import promote, promotions
from tasks.system.errors import ProjectError
from tasks.system.locks import exclusive_lock, run_lock, shared_lock
from tests.support import dvc_toy


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """d.x = 1 is tagged, 2 on a branch, 3 promoted, 4 an experiment, 5 in the workspace alone; 6 and 7 nobody's."""
    root = dvc_toy.make(tmp_path_factory.mktemp("retention") / "toy")
    for key, value in (("user.name", "t"), ("user.email", "t@example.org")):
        dvc_toy.call(root, "git", "config", key, value)
    run(root, 1)
    dvc_toy.commit(root, "one")
    dvc_toy.call(root, "git", "tag", "one")
    dvc_toy.call(root, "git", "checkout", "-q", "-b", "side")
    run(root, 2)
    dvc_toy.commit(root, "two")
    dvc_toy.call(root, "git", "checkout", "-q", "-b", "gone")
    run(root, 3)
    dvc_toy.commit(root, "three")
    promote(root, "third", "the third")
    dvc_toy.call(root, "git", "checkout", "-q", "main")
    dvc_toy.call(root, "git", "branch", "-q", "-D", "gone")
    dvc_toy.dvc(root, "checkout", "-q")
    dvc_toy.dvc(root, "exp", "run", "--temp", "-q", "-n", "four", "-S", "d.x=4")
    for value in (6, 7, 5):
        run(root, value)
    return root


def run(root: Path, value: int) -> None:
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text[: text.index("d:\n")] + f"d:\n  x: {value}\n")
    dvc_toy.dvc(root, "repro", "-q")


@pytest.fixture
def project(ran: Path, tmp_path: Path) -> Path:
    return dvc_toy.copy(ran, tmp_path / "toy")


def text_of(value: int) -> str:
    """What the stage d writes with d.x = `value`."""
    return f"a1\nb1\na1\nc1\nd{value}\n"


def cached(root: Path, value: int) -> bool:
    md5 = hashlib.md5(text_of(value).encode(), usedforsecurity=False).hexdigest()
    return (root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).exists()


def test_everything_reachable_is_kept_and_the_rest_goes(project: Path) -> None:
    assert all(cached(project, value) for value in range(1, 8))
    before = sorted(path for path in (project / ".dvc/cache").rglob("*"))
    (report,) = collect_garbage(project, delete=False)
    assert before == sorted(path for path in (project / ".dvc/cache").rglob("*"))
    gone = {own.hash for own in report.unneeded}
    assert {hashlib.md5(text_of(value).encode(), usedforsecurity=False).hexdigest() for value in (6, 7)} <= gone
    paths = {(own.stage, own.path) for own in report.unneeded}
    assert {("d", "data/d/out.txt"), ("d", "data/d/model")} <= paths or {("d", "data/d/model/weights.bin"), ("d", "data/d/model")} <= paths
    assert {own.stage for own in report.unneeded} == {"d"}
    assert report.size == sum((project / ".dvc/cache/files/md5" / own.hash[:2] / own.hash[2:]).stat().st_size for own in report.unneeded)
    assert [own.size for own in report.unneeded] == sorted((own.size for own in report.unneeded), reverse=True)
    kept = {(keeper.kind, keeper.name) for keeper in report.keepers}
    assert {
        ("workspace", "."),
        ("branch", "main"),
        ("branch", "side"),
        ("tag", "one"),
        ("promotion", "third"),
        ("experiment", "four"),
    } <= kept
    collect_garbage(project, delete=True)
    assert [value for value in range(1, 8) if cached(project, value)] == [1, 2, 3, 4, 5]
    assert collect_garbage(project, delete=False)[0].unneeded == ()
    for revision in ("one", "side", "promoted/third"):
        dvc_toy.call(project, "git", "checkout", "-q", "-f", revision)
        dvc_toy.dvc(project, "checkout", "-q")
        assert dvc_toy.dvc(project, "status").strip() == "Data and pipelines are up to date."


def test_a_committed_folder_that_was_never_fetched(project: Path) -> None:
    """As in a fresh clone whose first run used other parameters than the committed dvc.lock: its folders' listings are not here."""
    entry = parse_lock(dvc_toy.call(project, "git", "show", "one:dvc.lock").stdout, "one")["d"]
    md5 = locked_hashes(entry["outs"])["data/d/model"]["hash"]
    (project / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).unlink()
    (report,) = collect_garbage(project, delete=False)
    assert report.unlisted == (md5,) and report.unneeded
    said = dvc_toy.gr2(project, "gc", "--dry")
    assert "1 folders that something needs are not in the cache; dvc fetch --all-commits" in " ".join(said.stdout.split())


def test_it_removes_what_dvc_gc_would(project: Path) -> None:
    ours = {own.hash for own in report_of(project).unneeded}
    dvc_toy.dvc(project, "gc", "-f", "-q", "--workspace", "--all-branches", "--all-tags", "--all-experiments")
    left = {path.parent.name + path.name for path in (project / ".dvc/cache/files/md5").glob("*/*")}
    assert not ours & left
    assert report_of(project).unneeded == ()


def report_of(root: Path) -> GcReport:
    return collect_garbage(root, delete=False)[0]


def test_without_the_tag_the_promotion_goes(project: Path) -> None:
    dvc_toy.call(project, "git", "tag", "-d", "promoted/third")
    collect_garbage(project, delete=True)
    assert [value for value in range(1, 8) if cached(project, value)] == [1, 2, 4, 5]


def test_a_run_whose_cached_result_went_runs_again(project: Path) -> None:
    """The run cache still remembers it; its objects are gone."""
    collect_garbage(project, delete=True)
    run(project, 6)
    assert (project / "data/d/out.txt").read_text() == text_of(6) and cached(project, 6)


def test_a_workspace_of_a_control_keeps_its_data(project: Path) -> None:
    copy = project / ".gr2/controls/none"
    sync_clone(project, copy, (project / "params.yaml").read_text().replace("x: 5", "x: 8"), "a control")
    dvc_toy.dvc(copy, "repro", "-q")
    assert cached(project, 8)
    collect_garbage(project, delete=True)
    assert cached(project, 8) and not cached(project, 7)


def test_the_remote_is_cleaned_only_when_asked(project: Path, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="no default remote; set one with"):
        collect_garbage(project, delete=False, remote=True)
    dvc_toy.dvc(project, "remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    run(project, 6)
    dvc_toy.dvc(project, "push", "-q")
    run(project, 5)
    dvc_toy.dvc(project, "push", "-q")
    collect_garbage(project, delete=True)
    in_store = {path.parent.name + path.name for path in (tmp_path / "store/files/md5").glob("*/*")}
    here, there = collect_garbage(project, delete=False, remote=True)
    assert here.unneeded == () and {own.hash for own in there.unneeded} < in_store and there.where == "remote"
    assert hashlib.md5(text_of(6).encode(), usedforsecurity=False).hexdigest() in {own.hash for own in there.unneeded}
    collect_garbage(project, delete=True, remote=True)
    left = {path.parent.name + path.name for path in (tmp_path / "store/files/md5").glob("*/*")}
    assert left == in_store - {own.hash for own in there.unneeded}


def test_runs_and_the_collector_keep_out_of_each_others_way(project: Path) -> None:
    with (
        shared_lock(project),
        shared_lock(project),
        pytest.raises(ProjectError, match="a run is at work; gc"),
        exclusive_lock(project, "gc"),
    ):
        pass
    with exclusive_lock(project, "gc"), pytest.raises(ProjectError, match="for itself just now"), shared_lock(project):
        pass
    with (
        run_lock(project, what="schedule daily"),
        pytest.raises(ProjectError, match=r"schedule daily .* is at work"),
        exclusive_lock(project, "gc"),
    ):
        pass
    lock = project / ".dvc/tmp/rwlock"
    lock.write_text(json.dumps({"write": {"data/d": {"pid": os.getppid(), "cmd": "dvc repro d"}}, "read": {}}))
    with pytest.raises(ProjectError, match=f"DVC is at work in . .process {os.getppid()}: dvc repro d"), exclusive_lock(project, "gc"):
        pass
    ended = subprocess.Popen(["true"])
    ended.wait()
    lock.write_text(json.dumps({"write": {}, "read": {"data/a": [{"pid": ended.pid, "cmd": "dvc repro"}]}}))
    with exclusive_lock(project, "gc"):  # the record of a process that was killed binds nobody
        pass


def test_promotions(project: Path) -> None:
    (only,) = promotions(project)
    head = dvc_toy.call(project, "git", "rev-parse", "promoted/third^{commit}").stdout.strip()
    assert (only.name, only.commit, only.message) == ("third", head, "the third")
    assert dvc_toy.call(project, "git", "cat-file", "-t", "promoted/third").stdout.strip() == "tag"
    with pytest.raises(ProjectError, match=r"dvc\.lock is not committed as it stands"):
        promote(project, "fifth")
    dvc_toy.commit(project, "five")
    for name, message in (("third", "such a promotion already"), ("a b", "git takes no such name")):
        with pytest.raises(ProjectError, match=message):
            promote(project, name)
    file = project / "data/d/out.txt"
    file.chmod(0o644)
    file.write_text("edited")
    with pytest.raises(ProjectError, match=r"data/d/out\.txt is not what dvc\.lock records \(modified\)"):
        promote(project, "fifth")
    dvc_toy.dvc(project, "checkout", "-q", "--force")
    md5 = hashlib.md5(text_of(5).encode(), usedforsecurity=False).hexdigest()
    inside = project / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    inside.rename(project / "aside")
    with pytest.raises(ProjectError, match=r"data/d/(out\.txt|model) is not in DVC's cache"):
        promote(project, "fifth")
    (project / "aside").rename(inside)
    promote(project, "fifth")
    assert [own.name for own in promotions(project)] in (["fifth", "third"], ["third", "fifth"])

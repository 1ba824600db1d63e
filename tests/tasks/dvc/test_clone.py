"""The second workspace: the files of the first as git would hold them, nothing of the first touched, its own work kept."""

import os
from pathlib import Path

import pytest

from tasks.dvc.clone import sync_clone
from tasks.dvc.lockfile import read_lock
from tasks.dvc.repo import open_repo
from tasks.system.errors import ProjectError
from tasks.system.git import git
from tasks.system.yaml_files import parse
from tests.support import dvc_toy

PARAMS = "a:\n  folder: raw/mine\n  model: ../elsewhere\n  reads: data/one\n  kind: cpu\n"
LOCK = "schema: '2.0'\nstages:\n{}"


def entry(name: str, md5: str) -> str:
    return f"  {name}:\n    cmd: x\n    outs:\n    - path: data/{name}\n      md5: {md5}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "home" / "project"
    for name, text in {
        "dvc.yaml": "stages:\n  one: {cmd: x, outs: [data/one]}\n  two: {cmd: x, deps: [data/one], outs: [data/two]}\n",
        "params.yaml": PARAMS,
        ".gitignore": "/data/*/\n/raw/\n/.gr2/\n",
        "stages/one.py": "1\n",
        "data/one/model": "heavy",
        "raw/mine/x.csv": "raw",
        "../elsewhere/weights": "w",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    dvc_toy.call(root, "git", "init", "-q")
    dvc_toy.call(root, "python", "-m", "dvc", "init", "-q")
    dvc_toy.commit(root, "start")
    return root


def made(root: Path) -> Path:
    copy = root / ".gr2/controls/noise"
    sync_clone(root, copy, (root / "params.yaml").read_text(), "a control")
    return copy


def test_files_are_those_git_would_hold(root: Path) -> None:
    (root / "stages/one.py").write_text("edited, not committed\n")
    (root / "stages/new.py").write_text("untracked\n")
    (root / "latest").symlink_to("stages/one.py")
    copy = made(root)
    assert (copy / "stages/one.py").read_text() == "edited, not committed\n" and (copy / "stages/new.py").exists()
    assert os.readlink(copy / "latest") == "stages/one.py"
    assert not (copy / "data/one").exists(), "an output is made or restored, never linked"
    assert git(copy, "status", "--porcelain") == "" and "a control" in git(copy, "log", "--oneline")
    (copy / "data/two").mkdir(parents=True)
    (root / "stages/new.py").unlink()
    (root / "latest").unlink()
    (root / "latest").mkdir()
    (root / "latest/file").write_text("a folder now\n")
    made(root)
    assert not (copy / "stages/new.py").exists() and (copy / "data/two").is_dir()
    assert (copy / "latest/file").read_text() == "a folder now\n"
    assert (root / "stages/one.py").read_text() == "edited, not committed\n"


def test_paths_outside_version_control_still_lead_there(root: Path) -> None:
    copy = made(root)
    params = parse((copy / "params.yaml").read_text(), "")["a"]
    assert params == {"folder": "raw/mine", "model": str(root.parent / "elsewhere"), "reads": "data/one", "kind": "cpu"}
    assert (copy / "raw/mine/x.csv").read_text() == "raw" and not (copy / "raw").is_symlink()
    assert (root / "params.yaml").read_text() == PARAMS
    (root / "params.yaml").write_text("a: {kind: cpu}\n")
    made(root)
    assert not (copy / "raw/mine").exists() and (root / "raw/mine/x.csv").exists()


def test_nothing_is_written_through_a_link_of_the_project(root: Path, tmp_path: Path) -> None:
    (tmp_path / "big/mine").mkdir(parents=True)
    (root / "raw/mine/x.csv").unlink()
    (root / "raw/mine").rmdir()
    (root / "raw").rmdir()
    (root / "raw").symlink_to(tmp_path / "big")
    copy = made(root)
    assert (copy / "raw").is_symlink() and (copy / "raw/mine").is_dir() and list((tmp_path / "big").rglob("*")) == [tmp_path / "big/mine"]
    made(root)


def test_the_cache_is_shared(root: Path) -> None:
    with open_repo(made(root)) as repo:
        assert Path(repo.cache.local.path).is_relative_to(root / ".dvc/cache")


def test_lock_entries(root: Path) -> None:
    """A stage keeps what the copy ran until the original runs it again."""

    def lock() -> dict[str, str]:
        return {name: own["outs"][0]["md5"] for name, own in read_lock(copy).items()}

    (root / "dvc.lock").write_text(LOCK.format(entry("one", "m1") + entry("two", "m1")))
    copy = made(root)
    assert (copy / "dvc.lock").read_bytes() == (root / "dvc.lock").read_bytes()
    (copy / "dvc.lock").write_text(LOCK.format(entry("one", "m1") + entry("two", "control")))
    made(root)
    made(root)
    assert lock() == {"one": "m1", "two": "control"}
    (root / "dvc.lock").write_text(LOCK.format(entry("one", "m2") + entry("two", "m1")))
    made(root)
    assert lock() == {"one": "m2", "two": "control"}
    (root / "dvc.lock").write_text(LOCK.format(entry("one", "m2") + entry("two", "m2")))
    made(root)
    assert lock() == {"one": "m2", "two": "m2"}


def test_the_copy_keeps_its_lock_where_the_original_never_ran(root: Path) -> None:
    copy = made(root)
    text = LOCK.format(entry("one", "control"))
    for _ in range(2):
        (copy / "dvc.lock").write_text(text)
        made(root)
        made(root)
        assert (copy / "dvc.lock").read_text() == text


def test_the_environment_of_a_git_hook(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = git(root, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(root / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(root / ".git/index"))
    made(root)
    assert git(root, "rev-parse", "HEAD") == head and git(root, "status", "--porcelain") == ""


def test_outside_git(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: x}}\n")
    with pytest.raises(ProjectError, match="not a git repository"):
        sync_clone(tmp_path, tmp_path / ".gr2/copy", "a: 1\n", "")

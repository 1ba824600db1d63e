"""What one checkout made comes to another through the DVC remote, and what the remote lost or damaged is made anew."""

import json
import shutil
from pathlib import Path

import pytest

from tasks.dvc import remote
from tasks.dvc.lockfile import locked_hashes, read_lock
from tasks.project.graph import read_graph
from tests.support import dvc_toy


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project and of a remote beside it, to which its stage `a` is pushed, the only one that has run."""
    folder = tmp_path_factory.mktemp("pushed")
    root = dvc_toy.make(folder / "toy")
    dvc_toy.dvc(root, "remote", "add", "-d", "store", "../store")
    dvc_toy.commit(root, "a remote")
    dvc_toy.dvc(root, "repro", "-s", "a")
    remote.push(root, read_graph(root)["a"])
    return folder


@pytest.fixture
def project(pushed: Path, tmp_path: Path) -> Path:
    """A copy, whose remote lies beside it likewise."""
    return dvc_toy.copy(pushed, tmp_path / "pushed") / "toy"


def stored(root: Path, out: str) -> Path:
    md5 = locked_hashes(read_lock(root)["a"]["outs"])[out]["hash"]
    return root.parent / "store/files/md5" / md5[:2] / md5[2:]


def checkout(root: Path) -> Path:
    """With neither dvc.lock nor a cache."""
    other = root.parent / "other"
    shutil.rmtree(other, ignore_errors=True)
    dvc_toy.call(root.parent, "git", "clone", "-q", str(root), str(other))
    return other


def test_outputs_of_another_checkout_are_fetched_and_need_no_run(project: Path) -> None:
    other = checkout(project)
    stage = read_graph(other)["a"]
    assert (remote.fetch(other, stage), remote.fetch(other, stage)) == ("remote", "cache")
    assert "cached" in dvc_toy.dvc(other, "repro", "-s", "a") and not (other / "spans").exists()
    assert read_lock(other) == read_lock(project)


@pytest.mark.parametrize("out", ["data/a/out.txt", "data/a/model"])
@pytest.mark.parametrize("harm", ["gone", "cut short"])
def test_what_the_remote_lost_is_nobodys_until_it_is_pushed_again(project: Path, out: str, harm: str) -> None:
    place = stored(project, out)
    place.chmod(0o644)
    place.unlink() if harm == "gone" else place.write_bytes(place.read_bytes()[:1])
    other = checkout(project)
    assert remote.fetch(other, read_graph(other)["a"]) == ""
    remote.push(project, read_graph(project)["a"])
    assert remote.fetch(other, read_graph(other)["a"]) == "remote"


def test_a_file_of_a_folder_that_the_remote_lost(project: Path) -> None:
    listing = json.loads(stored(project, "data/a/model").read_text())
    member = project.parent / "store/files/md5" / listing[0]["md5"][:2] / listing[0]["md5"][2:]
    member.unlink()
    other = checkout(project)
    assert remote.fetch(other, read_graph(other)["a"]) == ""
    assert not stored(project, "data/a/model").exists(), "DVC would take the listing for proof that all of the folder is there"
    assert remote.fetch(other, read_graph(other)["a"]) == "", "and now its listing is neither here nor there"
    remote.push(project, read_graph(project)["a"])
    assert remote.fetch(other, read_graph(other)["a"]) == "remote"


def test_a_damaged_object_of_the_cache_is_fetched_anew(project: Path) -> None:
    md5 = locked_hashes(read_lock(project)["a"]["outs"])["data/a/out.txt"]["hash"]
    place = project / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    good = place.read_bytes()
    place.chmod(0o644)
    place.write_bytes(b"a")
    assert remote.fetch(project, read_graph(project)["a"]) == "remote"
    assert place.read_bytes() == good

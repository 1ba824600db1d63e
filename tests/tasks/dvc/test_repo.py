"""What a DVC that was killed leaves behind does not stop the next run."""

import sys
from pathlib import Path

import pytest

from tasks.dvc.repo import open_repo
from tests.support import dvc_toy


@pytest.mark.parametrize("text", ["", '{"read": {"/x/data'])
def test_a_half_written_record_of_dvc_s_processes_is_mended(tmp_path: Path, text: str) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    record = root / ".dvc" / "tmp" / "rwlock"
    record.parent.mkdir(exist_ok=True)
    record.write_text(text)
    refused = dvc_toy.call(root, "dvc", "repro", "-s", "a", ok=False)
    assert refused.returncode and "RWLock" in refused.stderr, "DVC mends it itself by now: this is no longer needed"
    with open_repo(root):
        assert not record.exists()
    dvc_toy.dvc(root, "repro", "-s", "a")


def test_a_whole_record_stays(tmp_path: Path) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    record = root / ".dvc" / "tmp" / "rwlock"
    record.parent.mkdir(exist_ok=True)
    record.write_text('{"read": {}, "write": {}}')
    with open_repo(root):
        assert record.read_text() == '{"read": {}, "write": {}}'


WATCHED = """
import os, sys
def watch(event, args):
    if event == "open" and str(args[0]).endswith("data/d/out.txt") and args[2] & (os.O_WRONLY | os.O_RDWR):
        print("WRITTEN IN PLACE")
sys.addaudithook(watch)
from dvc.cli import main
sys.exit(main(["checkout", "--force"]))
"""


def test_what_dvc_restores_is_never_seen_half_written(tmp_path: Path) -> None:
    """DVC's default tries a reflink first, for which it opens an empty file under the final name (cache.type in .dvc/config)."""
    root = dvc_toy.make(tmp_path / "toy")
    dvc_toy.dvc(root, "repro")
    made = (root / "data/d/out.txt").read_text()
    for kind in ("copy", "reflink,copy"):
        dvc_toy.dvc(root, "config", "--local", "cache.type", kind)
        (root / "data/d/out.txt").write_text("another")
        said = dvc_toy.call(root, sys.executable, "-c", WATCHED).stdout
        assert (root / "data/d/out.txt").read_text() == made
        assert ("WRITTEN IN PLACE" in said) == (kind != "copy"), "DVC does it otherwise by now: cache.type is no longer needed"
    (root / ".dvc" / "config.local").unlink()
    with open_repo(root) as repo:
        assert repo.cache.local.cache_types == ["copy"]

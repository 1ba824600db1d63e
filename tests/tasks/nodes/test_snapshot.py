"""What a snapshot of the code takes along, and what it refuses."""

from pathlib import Path

import pytest

from tasks.nodes import snapshot
from tasks.system.errors import ProjectError
from tests.support import dvc_toy


def test_weights_that_git_does_not_ignore_are_refused(tmp_path: Path) -> None:
    dvc_toy.call(tmp_path, "git", "init", "-q")
    (tmp_path / "code.py").touch()
    dvc_toy.commit(tmp_path, "first")
    (tmp_path / "models").mkdir()
    weights = tmp_path / "models" / "model.safetensors"
    weights.write_bytes(bytes(snapshot.LARGEST_BYTES + 1))
    with pytest.raises(ProjectError, match=r"models/model\.safetensors has 20 MB and git does not ignore it: .*\.gitignore"):
        snapshot.push_code_snapshot(tmp_path, "run", "stage", "")
    (tmp_path / ".gitignore").write_text("/models/\n")
    _, commit = snapshot.push_code_snapshot(tmp_path, "run", "stage", "")
    assert dvc_toy.call(tmp_path, "git", "ls-tree", "-r", "--name-only", commit).stdout.split() == [".gitignore", "code.py"]

"""A commit of the workspace that no branch has, for a version that a schedule puts in use. Branch, index and files stay as they are."""

import tempfile
from pathlib import Path

from tasks.maintenance.promotions import RECORDED
from tasks.nodes.secret_files import never_travels
from tasks.system.git import git, git_or_none

IDENTITY = ("-c", "user.name=gr2", "-c", "user.email=gr2@localhost")


def commit_workspace(root: Path, message: str) -> str:
    """HEAD with dvc.lock, dvc.yaml and params.yaml as they stand, and every other tracked file too, as the stages read it. -> the commit.

    ProjectError where git has no commit yet.
    """
    git(root, "rev-parse", "--verify", "HEAD")
    tracked = [name for name in git(root, "ls-files", "-z", "--modified").split("\0") if name and not never_travels(root, name)]
    with tempfile.TemporaryDirectory() as folder:
        # An index of its own; and names with * or [ are names, not patterns.
        env = {"GIT_INDEX_FILE": str(Path(folder) / "index"), "GIT_LITERAL_PATHSPECS": "1"}
        git(root, "read-tree", "HEAD", env=env)
        removed = [name for name in tracked if not (root / name).exists()]
        git(root, "update-index", "--force-remove", "-z", "--stdin", env=env, stdin="\0".join(removed))
        present = dict.fromkeys(
            [*(name for name in tracked if name not in removed), *(name for name in RECORDED if (root / name).exists())]
        )
        git(root, "add", "--force", "--pathspec-from-file=-", "--pathspec-file-nul", env=env, stdin="\0".join(present))
        tree = git(root, "write-tree", env=env).strip()
    if tree == git(root, "rev-parse", "HEAD^{tree}").strip():
        return git(root, "rev-parse", "HEAD").strip()
    identity = () if git_or_none(root, "config", "user.email") else IDENTITY
    return git(root, *identity, "commit-tree", tree, "-p", "HEAD", "-m", message).strip()

"""The code of a run, as nodes get it: a commit of the working tree as it stands, under a ref of its own. Branch, index, files stay."""

import tempfile
from pathlib import Path

from tasks.system.errors import ProjectError
from tasks.system.git import git, git_or_none

IDENTITY = {
    "GIT_AUTHOR_NAME": "gr2",
    "GIT_AUTHOR_EMAIL": "gr2@localhost",
    "GIT_COMMITTER_NAME": "gr2",
    "GIT_COMMITTER_EMAIL": "gr2@localhost",
}
REFS = "refs/gr2/runs"
LARGEST_BYTES = 20_000_000  # of an untracked file in a snapshot; source files are far below, weights far above


def push_code_snapshot(root: Path, run: str, stage: str, remote: str) -> tuple[str, str]:
    """Commits all that git does not ignore, dvc.lock of this moment with it, and pushes it to `remote` (empty: nodes fetch from `root`).

    Returns (ref, commit). ProjectError when git has no commit yet or the remote refuses.
    """
    head = _git(root, "rev-parse", "--verify", "HEAD")
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git(root, "read-tree", "HEAD", env=index)
        _refuse_large(root, index)
        _git(root, "add", "--all", env=index)
        tree = _git(root, "write-tree", env=index)
    commit = _git(root, "commit-tree", tree, "-p", head, "-m", f"{stage} of run {run}", env=IDENTITY)
    ref = f"{REFS}/{run}/{stage}"
    _git(root, "update-ref", ref, commit)
    if remote:
        _git(root, "push", "--quiet", "--force", remote, f"{commit}:{ref}")
    return ref, commit


def _refuse_large(root: Path, index: dict[str, str]) -> None:
    """ProjectError for an untracked file too large to be code: weights or data that would be pushed to the remote."""
    names = _git(root, "ls-files", "--others", "--exclude-standard", "-z", env=index).split("\0")
    sizes = {name: (root / name).stat().st_size for name in names if name and (root / name).is_file()}
    large = max(sizes, key=lambda name: sizes[name], default="")
    if large and sizes[large] > LARGEST_BYTES:
        raise ProjectError(
            f"{large} has {sizes[large] / 1e6:,.0f} MB and git does not ignore it: a placed run would push it to the remote with the code; "
            f"name it, or its folder, in .gitignore"
        )


def drop(root: Path, run: str, remote: str) -> None:
    """Removes the refs of a run, here and at `remote`; what cannot be removed there stays without harm."""
    refs = _git(root, "for-each-ref", "--format=%(refname)", f"{REFS}/{run}").split()
    for ref in refs:
        _git(root, "update-ref", "-d", ref)
    if remote and refs:
        git_or_none(root, "push", "--quiet", remote, *(f":{ref}" for ref in refs))


def check_out(folder: Path, origin: str, ref: str, commit: str) -> None:
    """Makes the clone at `folder` (made when missing) the very tree of `commit`, fetched from `origin`. What git ignores (data/) stays."""
    if not (folder / ".git").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _git(folder, "init", "--quiet")
    (folder / ".git" / "index.lock").unlink(missing_ok=True)  # of a git that was killed; the slot's lock keeps others out
    _git(folder, "fetch", "--quiet", "--no-tags", "--depth=1", origin, ref)
    _git(folder, "checkout", "--quiet", "--force", "--detach", commit)
    _git(folder, "clean", "-d", "--force", "--quiet")


def origin_of(home: Path) -> str:
    """Where the checkout at `home` came from; ProjectError when it has no remote `origin`."""
    return _git(home, "remote", "get-url", "origin")


def _git(folder: Path, *words: str, env: dict[str, str] | None = None) -> str:
    """Without the hooks of the checkout, and without git's housekeeping while others fetch from it."""
    return git(folder, "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", *words, env=env).strip()

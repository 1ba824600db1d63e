"""The code of a run, as nodes get it: a commit of its own under a ref of its own. Branch, index and files stay as they are.

What travels is what git tracks, as it stands in the working tree, and what the stage declares in dvc.yaml; never what
tasks.nodes.secret_files names. What does not travel is not written into git's objects either: an object stays there, and at the
remote, after its ref is gone. For the same reason the commit has no parent: a secret may stand in a commit that was never pushed.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.nodes.secret_files import never_travels
from tasks.project.graph import holds
from tasks.system.errors import ProjectError
from tasks.system.git import git, git_or_none

IDENTITY = {
    "GIT_AUTHOR_NAME": "gr2",
    "GIT_AUTHOR_EMAIL": "gr2@localhost",
    "GIT_COMMITTER_NAME": "gr2",
    "GIT_COMMITTER_EMAIL": "gr2@localhost",
}
REFS = "refs/gr2/runs"
ALWAYS = ("dvc.yaml", "dvc.lock", "params.yaml")  # every stage is declared by them; dvc.lock need not be in git
LARGEST_BYTES = 20_000_000  # of a declared file that git does not track; source files are far below, weights far above
NAMES_SHOWN = 5


@dataclass(frozen=True)
class Snapshot:
    """`left_out`: files and deps at hand here that nodes do not get."""

    ref: str
    commit: str
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _Files:
    tracked: list[str]
    declared: list[str]  # of those that git neither tracks nor ignores
    left_out: list[str]


def push_code_snapshot(root: Path, run: str, stage: str, remote: str, deps: Sequence[str] = ()) -> Snapshot:
    """Commits what nodes get for `stage`, dvc.lock of this moment with it, and pushes it to `remote` (empty: nodes fetch from `root`).

    `deps`: the deps of the stage that no stage makes. ProjectError when git has no commit yet, a declared file is too large for code,
    or the remote refuses.
    """
    _git(root, "rev-parse", "--verify", "HEAD")
    files = _choose(root, deps)
    _refuse_large(root, files.declared)
    with tempfile.TemporaryDirectory() as folder:
        # An index of its own, so the user's stays as it is; and names with * or [ are names, not patterns.
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index"), "GIT_LITERAL_PATHSPECS": "1"}
        _git(root, "read-tree", "HEAD", env=index)
        tracked = set(files.tracked)
        untracked = [path for path in _listed(root, index) if path not in tracked]
        _git(root, "update-index", "--force-remove", "-z", "--stdin", env=index, stdin="\0".join(untracked))
        _git(root, "add", "--update", env=index)
        new = [path for path in [*files.tracked, *files.declared] if os.path.lexists(root / path)]
        # --force: git may track what it is also told to ignore.
        _git(root, "add", "--force", "--pathspec-from-file=-", "--pathspec-file-nul", env=index, stdin="\0".join(new))
        tree = _git(root, "write-tree", env=index)
    commit = _git(root, "commit-tree", tree, "-m", f"{stage} of run {run}", env=IDENTITY)
    ref = f"{REFS}/{run}/{stage}"
    _git(root, "update-ref", ref, commit)
    if remote:
        _git(root, "push", "--quiet", "--force", remote, f"{commit}:{ref}")
    return Snapshot(ref, commit, tuple(files.left_out))


def left_out_line(names: Sequence[str]) -> str:
    """What a run says about files that nodes do not get."""
    shown = ", ".join(names[:NAMES_SHOWN]) + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")
    return f"nodes do not get {shown}: only what git tracks and what the stage declares in dvc.yaml, never keys or models/"


def _choose(root: Path, deps: Sequence[str]) -> _Files:
    all_tracked = _listed(root)
    untracked = _listed(root, None, "--others", "--exclude-standard")
    tracked = [path for path in all_tracked if not never_travels(root, path)]
    declared_deps = (*ALWAYS, *deps)
    declared = [path for path in untracked if any(holds(dep, path) for dep in declared_deps) and not never_travels(root, path)]
    travels = {*tracked, *declared}
    left_out = [path for path in [*all_tracked, *untracked] if path not in travels]
    # A dep of which nothing travels: git ignores it, or it is one of the models.
    deps_at_hand = [dep for dep in deps if (root / dep).exists() and root in (root / dep).parents and ".." not in Path(dep).parts]
    left_out += [dep for dep in deps_at_hand if not any(holds(dep, path) for path in [*travels, *left_out])]
    return _Files(tracked, declared, left_out)


def _listed(root: Path, env: dict[str, str] | None = None, *options: str) -> list[str]:
    return list(dict.fromkeys(name for name in _git(root, "ls-files", "-z", *options, env=env).split("\0") if name))


def _refuse_large(root: Path, declared: Sequence[str]) -> None:
    """ProjectError for an untracked file too large to be code: weights or data that would be pushed to the remote."""
    sizes = {name: (root / name).stat().st_size for name in declared if (root / name).is_file()}
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
    # One commit without history: a node needs the tree alone.
    _git(folder, "fetch", "--quiet", "--no-tags", "--depth=1", origin, ref)
    _git(folder, "checkout", "--quiet", "--force", "--detach", commit)
    _git(folder, "clean", "-d", "--force", "--quiet")


def origin_of(home: Path) -> str:
    """Where the checkout at `home` came from; ProjectError when it has no remote `origin`."""
    return _git(home, "remote", "get-url", "origin")


def _git(folder: Path, *words: str, env: dict[str, str] | None = None, stdin: str = "") -> str:
    """Without the hooks of the checkout, and without git's housekeeping while others fetch from it."""
    return git(folder, "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", *words, env=env, stdin=stdin).strip()

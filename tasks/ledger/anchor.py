"""The head of the lineage record in git: a ref to a blob that holds it, so that no one file can be cut without a trace."""

from pathlib import Path

from tasks.system.git import git_or_none

REF = "refs/gr2/lineage"


def ref_name(root: Path) -> str | None:
    """The ref of the ledger at `root`: a worktree, and a project in a folder of a repository, has one of its own. None outside git."""
    folders = git_or_none(root, "rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir", "--show-prefix")
    if folders is None:
        return None
    git_folder, common_folder, *prefix = folders.splitlines()
    worktree = [Path(git_folder).name] if git_folder != common_folder else []
    return "-".join([REF, *worktree, *(part for line in prefix for part in line.split("/") if part)])


def git_anchor(root: Path) -> str:
    """The text in the ref; empty where there is none."""
    name = ref_name(root)
    text = git_or_none(root, "cat-file", "blob", name) if name else None
    return f"{text}\n" if text else ""


def set_git_anchor(root: Path, text: str) -> None:
    name = ref_name(root)
    blob = git_or_none(root, "hash-object", "-w", "--stdin", given=text) if name else None
    if name and blob:
        git_or_none(root, "update-ref", name, blob)

"""What is true of a whole run and varies from run to run: it goes into the lineage record, never into an output."""

import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from tasks.system.git import git_or_none


class GitState(TypedDict):
    """`revision`: the commit; `dirty`: whether anything but dvc.lock, which every run writes, differs from it. None outside git."""

    revision: str | None
    dirty: bool | None


@dataclass(frozen=True)
class RunContext:
    """`git`: revision and dirty. `flow_run`: id of the Prefect flow run; empty outside of one. `host`: the machine that orchestrates."""

    git: GitState
    flow_run: str = ""
    host: str = field(default_factory=platform.node)


def run_context(root: Path, flow_run: str = "") -> RunContext:
    return RunContext(git_revision(root), flow_run)


def git_revision(root: Path) -> GitState:
    revision = git_or_none(root, "rev-parse", "--verify", "HEAD")
    changed = git_or_none(root, "status", "--porcelain", "--", ".", ":(exclude)dvc.lock")
    return {"revision": revision, "dirty": None if changed is None else bool(changed)}

"""Asking git: `git` where it must answer, `git_or_none` where it may not."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tasks.system.errors import ProjectError


def git(folder: Path, *words: str) -> str:
    """What git prints in the repository of `folder`, also when a hook of another runs us. ProjectError with what git said when it fails."""
    result = subprocess.run(["git", *words], cwd=folder, env=strip_git_env(os.environ), capture_output=True, text=True, check=False)
    if result.returncode:
        raise ProjectError(f"git {words[0]} in {folder}: {result.stderr.strip() or f'exit code {result.returncode}'}")
    return result.stdout


def git_or_none(folder: Path, *words: str, given: str = "") -> str | None:
    """What git prints, stripped; None when it fails or there is no repository. `given`: its standard input."""
    result = subprocess.run(["git", *words], cwd=folder, input=given, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def strip_git_env(env: Mapping[str, str]) -> dict[str, str]:
    """`env` without what would point git at another repository: set when a hook of it runs us."""
    return {name: value for name, value in env.items() if name not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")}

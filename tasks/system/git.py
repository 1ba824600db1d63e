"""All calls of git: `git` where it must answer, `git_or_none` where it may not, `git_bytes` for contents."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tasks.system.errors import ProjectError

REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")


def check_git() -> None:
    """ProjectError where git is not installed."""
    if shutil.which("git") is None:
        raise ProjectError("git: no such program in PATH; install git, then run again")


def git(folder: Path, *words: str, env: Mapping[str, str] | None = None, stdin: str = "") -> str:
    """What git prints in the repository of `folder`, also when a hook of another runs us. `env`: further environment. `stdin`: its
    standard input.

    ProjectError with what git said when it fails.
    """
    result = _run(folder, words, stdin.encode("utf-8", "surrogateescape"), env)
    if result.returncode:
        lines = (result.stderr.decode("utf-8", "replace").strip() or f"exit code {result.returncode}").splitlines()
        message = next((line for line in lines if line.startswith(("fatal: ", "error: "))), lines[-1])  # hints stand around it
        command = next(word for word in words if not word.startswith("-") and "=" not in word)  # behind `-c name=value`
        raise ProjectError(f"git {command} in {folder}: {message}")
    return result.stdout.decode("utf-8", "surrogateescape")  # a file's name may be no UTF-8


def git_or_none(folder: Path, *words: str, stdin: str = "", limit_s: float | None = None) -> str | None:
    """What git prints, stripped; None when it fails, takes longer than `limit_s`, or there is no repository.

    `stdin`: its standard input.
    """
    try:
        result = _run(folder, words, stdin.encode(), limit_s=limit_s)
    except subprocess.TimeoutExpired:
        return None
    return None if result.returncode else result.stdout.decode("utf-8", "surrogateescape").strip()


def git_bytes(folder: Path, *words: str, stdin: bytes = b"") -> bytes | None:
    """What git prints, as it is; None when it fails. `stdin`: its standard input."""
    result = _run(folder, words, stdin)
    return None if result.returncode else result.stdout


def strip_git_env(env: Mapping[str, str]) -> dict[str, str]:
    """`env` without what would point git at another repository: set when a hook of it runs us."""
    return {name: value for name, value in env.items() if name not in REPOSITORY}


def _run(
    folder: Path, words: tuple[str, ...], stdin: bytes, env: Mapping[str, str] | None = None, limit_s: float | None = None
) -> "subprocess.CompletedProcess[bytes]":
    # Without a terminal to ask at: a remote that wants a password is an error, not a run that hangs.
    full = {**strip_git_env(os.environ), "GIT_TERMINAL_PROMPT": "0", **(env or {})}
    check_git()
    return subprocess.run(["git", *words], cwd=folder, env=full, input=stdin, capture_output=True, check=False, timeout=limit_s)

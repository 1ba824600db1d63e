"""What this installation lacks of the packages that pyproject.toml declares, in one line with the remedy."""

import re
import sys
from collections.abc import Sequence
from importlib import metadata

from tasks.system.errors import ProjectError

PACKAGE = "gr2-pipeline"
REMEDY = "run make setup, or pip install '.[cpu]' ('.[gpu]' on a GPU host; docs/environment.md)"


def check_installed() -> None:
    """ProjectError with what is missing. Versions are not compared; a project that is itself not installed has nothing to go by."""
    try:
        lines = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:  # a checkout on PYTHONPATH
        return
    # Extras are a choice: what is missing of them is said where it is used.
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]
    if missing := [name for name in names if not _is_installed(name)]:
        raise ProjectError(not_installed(missing))


def not_installed(names: Sequence[str]) -> str:
    plural = "are" if len(names) > 1 else "is"
    return f"{', '.join(names)} {plural} not installed for {sys.executable}: {REMEDY}"


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True

"""One smoke run of all ten stages that the tests of this folder share. Whoever changes its project puts it back."""

from dataclasses import dataclass
from pathlib import Path

import project_clone
import pytest


@dataclass(frozen=True)
class SmokeRun:
    """`root`: the clone after its first run. `said`: what that printed."""

    root: Path
    said: str
    states: dict[str, str]


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> SmokeRun:
    root = project_clone.clone(tmp_path_factory.mktemp("smoke") / "project")
    result = project_clone.gr2(root, "run", "--profile", "smoke")
    return SmokeRun(root, result.stdout, project_clone.states(result))

"""One smoke run of all ten stages that the tests of this folder share. Whoever changes its project puts it back."""

import project_clone
import pytest


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> project_clone.SmokeRun:
    root = project_clone.clone(tmp_path_factory.mktemp("smoke") / "project")
    result = project_clone.gr2(root, "run", "--profile", "smoke")
    return project_clone.SmokeRun(root, project_clone.states(result))

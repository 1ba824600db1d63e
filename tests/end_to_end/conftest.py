"""One smoke run of all stages for the tests of this folder. Whoever changes its project puts it back."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

from tests.support import prefect_server, project_clone


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[project_clone.SmokeRun]:
    """Run once, by whoever comes first, with a Prefect server of its own; each test process works on a copy of its own."""
    made = _shared(tmp_path_factory, worker_id)
    with prefect_server.serve(tmp_path_factory.mktemp("prefect")) as project_clone.server:
        yield made
    project_clone.server = ""


def _shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> project_clone.SmokeRun:
    if worker_id == "master":
        return _run(tmp_path_factory.mktemp("smoke") / "project")
    shared = tmp_path_factory.getbasetemp().parent / "smoke"
    with filelock.FileLock(f"{shared}.lock"):
        if not (shared / "states.json").exists():
            states = _run(shared / "project").states
            (shared / "states.json").write_text(json.dumps(states))
    root = Path(shutil.copytree(shared / "project", tmp_path_factory.mktemp("smoke") / "project", symlinks=True))
    return project_clone.SmokeRun(root, json.loads((shared / "states.json").read_text()))


def _run(root: Path) -> project_clone.SmokeRun:
    result = project_clone.gr2(project_clone.clone(root), "run", "--profile", "smoke")
    return project_clone.SmokeRun(root, project_clone.states(result))

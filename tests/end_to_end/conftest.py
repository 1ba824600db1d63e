"""One smoke run of all stages for the tests of this folder. Whoever changes its project puts it back."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

from tests.support import project_clone, read_audit


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory, worker_id: str, request: pytest.FixtureRequest) -> Iterator[project_clone.SmokeRun]:
    """Run once, by the first test process that asks, with its own Prefect server; each test process works on its own copy."""
    run = _shared(tmp_path_factory, worker_id)
    project_clone.server = request.getfixturevalue("server")
    yield run
    project_clone.server = ""


def _shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> project_clone.SmokeRun:
    if worker_id == "master":
        return _run(tmp_path_factory.mktemp("smoke"))
    shared = tmp_path_factory.getbasetemp().parent / "smoke"
    with filelock.FileLock(f"{shared}.lock"):
        if not (shared / "states.json").exists():
            states = _run(shared).states
            (shared / "states.json").write_text(json.dumps(states))
    root = Path(shutil.copytree(shared / "project", tmp_path_factory.mktemp("smoke") / "project", symlinks=True))
    return project_clone.SmokeRun(root, json.loads((shared / "states.json").read_text()), shared / "reads")


def _run(folder: Path) -> project_clone.SmokeRun:
    """The smoke run in folder/project; what its stages read is recorded in folder/reads."""
    root, reads = folder / "project", folder / "reads"
    environment = read_audit.record(root, reads, project_clone.environment(root))
    result = project_clone.call(project_clone.clone(root), sys.executable, "-m", "flows.cli", "run", "--profile", "smoke", env=environment)
    return project_clone.SmokeRun(root, project_clone.states(result), reads)

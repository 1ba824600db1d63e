"""What is wrong with the machine ends a command with a message and exit code 2, not in a traceback; a dead Prefect server ends nothing."""

import errno
import shutil
import subprocess
import sys
import time
from pathlib import Path
from sqlite3 import OperationalError
from typing import NamedTuple

import psutil
import pytest

from flows.cli import main
from tasks.system import disk_watchdog
from tasks.system.errors import ProjectError, fault_of_machine
from tests.support import dvc_toy

READ_ONLY = """
mount --bind {root} {root} && mount -o remount,ro,bind {root} && cd {root}
for command in status plan "lineage --verify" run "gc --dry"; do {python} -m flows.cli $command; echo "exit code $?"; done
"""


class Usage(NamedTuple):
    free: int


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dvc_toy.make(tmp_path_factory.mktemp("machine") / "toy")


@pytest.mark.parametrize("command", [["lineage", "--verify"], ["run"], ["gc", "--dry"]])
def test_without_git(project: Path, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    result = dvc_toy.gr2(project, *command, ok=False, PATH=str(tmp_path))
    assert result.returncode == 2 and result.stderr == "gr2: git: no such program in PATH; install git, then run again\n"


def test_a_read_only_project(project: Path) -> None:
    script = READ_ONLY.format(root=project, python=sys.executable)
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs permission to mount")
    result = dvc_toy.call(project, "unshare", "--mount", "sh", "-c", script, ok=False, PYTHONPATH=str(dvc_toy.ROOT))
    assert result.stdout.count("exit code 2") == 5 and "Traceback" not in result.stderr, result.stderr
    assert result.stderr.count("make these writable, or work in a copy") == 5


def test_a_full_disk(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """DVC in this very process would try to write into its database of file states for ever."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(disk_watchdog.shutil, "disk_usage", lambda folder: Usage(free=4096))
    assert main(["plan"]) == 2
    assert capsys.readouterr().err == f"gr2: no space left on the disk of {project}; make room, then run again\n"


def test_kinds_are_known_in_any_wrapping() -> None:
    for error, words in (
        (OSError(errno.ENOSPC, "No space left on device", "/x/events.jsonl"), "no space left on the disk of /x/events.jsonl"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "cannot write"),
        (OperationalError("database or disk is full"), "no space left"),
        (OperationalError("attempt to write a readonly database"), "cannot write"),
        (OperationalError("unable to open database file"), "cannot write"),
    ):
        wrapped = RuntimeError("DVC failed")
        wrapped.__cause__ = error
        assert words in fault_of_machine(error) and words in fault_of_machine(wrapped)
    for bug in (
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
        OperationalError("no such table: x"),
        KeyError("x"),
        ProjectError("x"),
    ):
        assert not fault_of_machine(bug), "a bug ends in a traceback"


@pytest.mark.slow
def test_the_runs_own_prefect_server_is_killed(tmp_path: Path) -> None:
    """It is started again; the run loses seconds, and ends with exit code 0."""
    root = dvc_toy.make(tmp_path / "toy", dvc_toy.PARAMS.replace("a:\n  x: 1", "a:\n  x: 1\n  sleep: 10", 1))
    patient = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(dvc_toy.TIMEOUT_S)}  # the machine may be a busy one
    env = {**dvc_toy.environment(), **patient, "PYTHONPATH": str(dvc_toy.ROOT)}
    env.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "flows.cli", "run"]
    child = subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = root / ".gr2/logs/a.log"  # what a stage prints
    while not log.exists() or "hello from a" not in log.read_text():
        assert child.poll() is None
        time.sleep(0.1)
    (server,) = [process for process in psutil.Process(child.pid).children() if any("ephemeral_app" in word for word in process.cmdline())]
    server.kill()
    said, errors = child.communicate(timeout=dvc_toy.TIMEOUT_S)
    assert child.returncode == 0, errors
    assert errors == "gr2: Prefect's server of this run died; starting it again\n"
    assert set(dvc_toy.states(subprocess.CompletedProcess(command, 0, said, errors)).values()) == {"Completed"}

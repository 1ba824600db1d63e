"""Prefect's worker ends with `gr2 worker`, however that ends: here with a stand-in for Prefect's worker and one flow run of it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import dvc_toy
from tests.support.prefect_server import wait_for

RUN = """
import os, pathlib, signal, sys, time
def ended(*_):
    time.sleep(0.5)  # to put outputs back, say
    pathlib.Path("ended").write_text("in good order")
    sys.exit()
signal.signal(signal.SIGTERM, ended)
pathlib.Path("run").write_text(str(os.getpid()))
time.sleep(36000)
"""
WORKER = """
import os, pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "run.py"])
pathlib.Path("worker").write_text(str(os.getpid()))
child.wait()
sys.exit(7)
"""
SERVE = """
import os, pathlib, signal, sys
from flows.server import worker_process
signal.signal(signal.SIGTERM, worker_process._stopped)
sys.exit(worker_process.guarded([sys.executable, "worker.py"], pathlib.Path.cwd(), dict(os.environ)))
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`gr2 worker` whose worker has a flow run at work."""
    (tmp_path / "run.py").write_text(RUN)
    (tmp_path / "worker.py").write_text(WORKER)
    env = {**os.environ, "PYTHONPATH": str(dvc_toy.ROOT)}
    process = subprocess.Popen([sys.executable, "-c", SERVE], cwd=tmp_path, env=env, start_new_session=True)
    try:
        wait_for(lambda: all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in ("run", "worker")))
        yield process
    finally:
        for pid in (process.pid, pid_of(tmp_path, "worker"), pid_of(tmp_path, "run")):
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def pid_of(folder: Path, name: str) -> int:
    return int((folder / name).read_text())


def gone(folder: Path) -> bool:
    """Whether the worker and its flow run have ended."""
    return not any(alive(pid_of(folder, name)) for name in ("worker", "run"))


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_kill_9_ends_the_run_in_good_order_and_the_worker(served: subprocess.Popen[bytes], tmp_path: Path) -> None:
    served.kill()
    served.wait()
    wait_for(lambda: gone(tmp_path))
    assert (tmp_path / "ended").read_text() == "in good order"


def test_so_does_sigterm(served: subprocess.Popen[bytes], tmp_path: Path) -> None:
    served.terminate()
    assert served.wait(600) == 0
    assert gone(tmp_path) and (tmp_path / "ended").exists()


def test_a_guard_that_is_killed_leaves_nothing(served: subprocess.Popen[bytes], tmp_path: Path) -> None:
    psutil.Process(pid_of(tmp_path, "worker")).parent().kill()
    served.wait(600)
    wait_for(lambda: gone(tmp_path))


def test_guard_and_gr2_worker_killed_together_take_the_worker_along(served: subprocess.Popen[bytes], tmp_path: Path) -> None:
    guard = psutil.Process(pid_of(tmp_path, "worker")).parent()
    served.send_signal(signal.SIGSTOP)  # so that it cannot help
    guard.kill()
    wait_for(lambda: not alive(pid_of(tmp_path, "worker")))


def test_the_exit_code_of_a_worker_that_ends_by_itself(served: subprocess.Popen[bytes], tmp_path: Path) -> None:
    os.kill(pid_of(tmp_path, "run"), signal.SIGKILL)
    assert served.wait(600) == 7

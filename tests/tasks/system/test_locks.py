"""The lock on a checkout, held by real processes."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tasks.system.locks import LOCK, Busy, run_lock

ROOT = Path(__file__).resolve().parents[3]
HOLD = """\
import pathlib, subprocess, sys, time
from tasks.system.locks import run_lock
with run_lock(pathlib.Path(sys.argv[1]), what="gr2 run"):
    child = subprocess.Popen(["sleep", "60"])
    print(child.pid, flush=True)
    time.sleep(60)
"""


def hold(root: Path) -> tuple[subprocess.Popen[str], int]:
    """A process that holds the lock and has a child."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, int(process.stdout.readline())


def test_a_killed_holder_frees_it_though_its_child_lives(tmp_path: Path) -> None:
    process, child = hold(tmp_path)
    try:
        with pytest.raises(Busy, match=rf"gr2 run \(pid {process.pid}\) is at work in .* since 20"), run_lock(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.kill(child, 0)
        with run_lock(tmp_path):
            assert str(os.getpid()) in (tmp_path / LOCK).read_text()
    finally:
        process.kill()
        os.kill(child, signal.SIGKILL)
    assert (tmp_path / LOCK).read_text() == ""


def test_waiting(tmp_path: Path) -> None:
    order = []

    def second() -> None:
        with run_lock(tmp_path, wait=True):
            order.append("second")

    with run_lock(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        order.append("first")
    thread.join(600)
    assert order == ["first", "second"]

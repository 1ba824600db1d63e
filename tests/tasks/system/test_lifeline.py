"""What ends with its parent, after a kill -9 of that; and what a lifeline that was cancelled leaves alone."""

import subprocess
import sys
from pathlib import Path

import psutil

from tests.support import dvc_toy
from tests.support.prefect_server import wait_for

PARENT = """
import subprocess, sys, time
from tasks.system.lifeline import Lifeline, killed_with_parent
sleep = [sys.executable, "-c", "import time; time.sleep(36000)"]
tied = subprocess.Popen(sleep, preexec_fn=killed_with_parent())
held, free = subprocess.Popen(sleep, start_new_session=True), subprocess.Popen(sleep, start_new_session=True)
Lifeline(f"kill -9 {held.pid}")
Lifeline(f"kill -9 {free.pid}").cancel()
print(tied.pid, held.pid, free.pid, flush=True)
time.sleep(36000)
"""


def test_kill_9_of_the_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=dvc_toy.ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    tied, held, free = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    try:
        parent.kill()
        parent.wait()
        wait_for(lambda: not any(_runs(process) for process in (tied, held)))
        assert _runs(free)
    finally:
        free.kill()


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE

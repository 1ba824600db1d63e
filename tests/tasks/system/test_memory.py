"""Memory of the processes below one, itself aside."""

import subprocess
import sys

import pytest

from tasks.system import memory

CHILD = "import time; block = b'x' * 150_000_000; print('full', flush=True); time.sleep(30)"
LEADER = f"import subprocess, sys; own = b'x' * 400_000_000; subprocess.run([sys.executable, '-c', {CHILD!r}])"


def test_peak_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LOOK_S", 0.05)
    with subprocess.Popen([sys.executable, "-c", LEADER], stdout=subprocess.PIPE, start_new_session=True) as leader:
        with memory.peak_memory(leader) as peak:
            assert leader.stdout and leader.stdout.readline() == b"full\n"
            while peak.megabytes < 150:  # the test's own timeout ends it
                pass
        subprocess.run(["kill", "--", f"-{leader.pid}"], check=True)
    assert 150 <= peak.megabytes < 300

"""A DVC that waits for ever on a full disk is ended; its stage is not."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.run.retries import can_pass
from tasks.system import disk_watchdog

SPINS = "while True: pass"
WORKS = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(2)'])"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("PATIENCE_S", 0.5), ("LOOK_S", 0.05), ("GRACE_S", 0.5)):
        monkeypatch.setattr(disk_watchdog, name, seconds)


def start(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True)


def test_one_that_spins_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_watchdog, "ROOM", 1 << 62)  # no disk has that
    child = start(SPINS)
    with disk_watchdog.watched(child, tmp_path) as disk:
        assert child.wait(30) == -15
    assert disk.full == str(tmp_path)
    assert can_pass(f"No space left on the disk of {disk.full}; make room, then run again"), "another node may have room"


def test_one_with_a_stage_at_work_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_watchdog, "ROOM", 1 << 62)
    child = start(WORKS)
    with disk_watchdog.watched(child, tmp_path) as disk:
        assert child.wait(30) == 0
    assert not disk.full


def test_nor_one_with_room(tmp_path: Path) -> None:
    child = start(SPINS)
    with disk_watchdog.watched(child, tmp_path) as disk:
        time.sleep(1.5)
        assert child.poll() is None
        child.kill()
        child.wait()
    assert not disk.full

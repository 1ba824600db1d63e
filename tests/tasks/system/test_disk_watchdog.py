"""A DVC that waits for ever on a full disk is ended; its stage is not."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.run.retries import is_transient
from tasks.system import disk_watchdog

SPINS = "while True: pass"
WORKS = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(2)'])"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("PATIENCE_S", 0.5), ("LOOK_S", 0.05), ("GRACE_S", 0.5)):
        monkeypatch.setattr(disk_watchdog, name, seconds)


Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Python code as its own process group. What still runs when the test ends, or fails, is killed: it would spin for ever."""
    children: list[subprocess.Popen[bytes]] = []

    def begin(code: str) -> "subprocess.Popen[bytes]":
        children.append(subprocess.Popen([sys.executable, "-c", code], start_new_session=True))
        return children[-1]

    yield begin
    for child in children:
        child.kill()
        child.wait()


def test_one_that_spins_is_ended(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_watchdog, "ROOM", 1 << 62)  # no disk has that
    child = start(SPINS)
    with disk_watchdog.end_on_full_disk(child, [tmp_path]) as disk:
        assert child.wait(600) == -15
    assert disk.full == str(tmp_path)
    assert is_transient(f"No space left on the disk of {disk.full}; make room, then run again"), "another node may have room"


def test_one_with_a_stage_at_work_is_not(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_watchdog, "ROOM", 1 << 62)
    child = start(WORKS)
    with disk_watchdog.end_on_full_disk(child, [tmp_path]) as disk:
        assert child.wait(600) == 0
    assert not disk.full


def test_nor_one_with_room(start: Start, tmp_path: Path) -> None:
    child = start(SPINS)
    with disk_watchdog.end_on_full_disk(child, [tmp_path]) as disk:
        time.sleep(1.5)
        assert child.poll() is None
    assert not disk.full

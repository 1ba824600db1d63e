"""Processes beside this one: what a killed owner left at work, found by a mark in its environment (only one's own can be read); groups."""

import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # psutil is loaded by the few commands that look at processes
    from psutil import Process


def marked_processes(name: str, value: str) -> "list[Process]":
    """Processes, this one aside, in whose environment `name` is `value`, or a comma-separated list with it."""
    import psutil

    processes = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(name, "") if process.pid != os.getpid() else ""
            if mark == value or value in mark.split(","):
                processes.append(process)
        except (psutil.Error, OSError):
            continue  # it ended, or is another user's
    return processes


def kill_and_wait(processes: "list[Process]") -> None:
    """Kills `processes` and waits until they are gone. The caller holds the lock that their owner had."""
    import psutil

    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    # A killed process holds its files and its GPU until the kernel has taken it down.
    psutil.wait_procs(processes, timeout=10)


def is_dvc(process: "Process") -> bool:
    """Whether `process` is a DVC that outlived who started it: it ends in good order by itself."""
    import psutil

    try:
        return process.cmdline()[1:3] == ["-m", "dvc"]
    except psutil.Error:
        return False


def has_children(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).children())
    except psutil.Error:
        return False


def signal_group(leader: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, number)

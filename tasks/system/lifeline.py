"""Children that end with their parent, also after a kill -9 of it, which runs no handler and no `atexit`."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def killed_with_parent() -> Callable[[], None]:
    """For `preexec_fn`: Linux kills the child when the thread that started it ends. Does nothing elsewhere."""
    if sys.platform != "linux":
        return lambda: None
    libc, parent = ctypes.CDLL(None), os.getpid()  # loaded here: between fork and exec only what cannot wait for a lock is safe

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the call above
            os._exit(1)

    return prepare


class Lifeline:
    """Has /bin/sh carry out `command` when this process ends, however it does, unless `cancel` was called.

    The shell reads from a pipe whose other end only this process has.
    """

    def __init__(self, command: str):
        reading, self._writing = os.pipe()
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", f"read -r _ || {{ {command}; }}"],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C on the terminal is not for it
        )
        os.close(reading)

    def cancel(self) -> None:
        """Once what the command would end has ended: its number may be another process's by now."""
        if self._shell.returncode is not None:
            return
        with suppress(BrokenPipeError):
            os.write(self._writing, b"\n")
        os.close(self._writing)
        self._shell.wait()

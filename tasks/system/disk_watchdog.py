"""DVC on a full disk: its database of file states tries to write until there is room (diskcache, retry=True), and says nothing.

So whoever starts DVC watches it.
"""

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.system.background import background_thread
from tasks.system.errors import ProjectError
from tasks.system.processes import has_children, signal_group

ROOM = 1 << 20  # bytes; with less, not even a page of the database can be sure of a place
PATIENCE_S = 20.0  # room may come back, as when another process ends and takes its temporary files along
GRACE_S = 5.0
LOOK_S = 2.0


def check_room(folders: Sequence[Path]) -> None:
    """ProjectError when one of `folders` has no room: for DVC in this process, which nobody could end while it tries."""
    if full := _full(folders):
        raise ProjectError(f"no space left on the disk of {full}; make room, then run again")


class DiskState:
    """`full`: the folder without room, for which the process was ended; empty as long as it was not."""

    full: str = ""


@contextmanager
def end_on_full_disk(child: "subprocess.Popen[bytes]", folders: Sequence[Path]) -> Iterator[DiskState]:
    """Ends DVC's process `child`, the leader of its group, when it has had no stage at work and no room for PATIENCE_S.

    `folders`: where DVC writes: outputs and, mostly, the cache; its databases.

    A stage is left alone: it fails by itself when it has to write, and may have hours of work in its memory.
    """
    state = DiskState()

    def watch(over: threading.Event) -> None:
        since = time.monotonic()
        while not over.wait(LOOK_S):
            if not (full := _full(folders)) or has_children(child.pid):
                since = time.monotonic()
            elif time.monotonic() - since > PATIENCE_S:
                state.full = full
                # SIGTERM lets it end in good order if it still can; the loop that it hangs in may not.
                for number in (signal.SIGTERM, signal.SIGKILL):
                    signal_group(child, number)
                    over.wait(GRACE_S)
                return

    with background_thread(watch):
        yield state


def _full(folders: Sequence[Path]) -> str:
    """The first of `folders` without room; empty if all have some."""
    for folder in folders:
        with suppress(OSError):
            if shutil.disk_usage(folder).free < ROOM:
                return str(folder)
    return ""

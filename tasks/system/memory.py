"""How much memory the processes below one held at most."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tasks.system.background import background_thread

LOOK_S = 0.5


class PeakMemory:
    """`megabytes`: the most that was seen; 0 when nothing was at work for long enough to be seen."""

    megabytes: int = 0


@contextmanager
def peak_memory(leader: "subprocess.Popen[bytes]") -> Iterator[PeakMemory]:
    """Of all processes below `leader` together, itself aside: the resident memory, looked at twice a second.

    Memory that several processes share counts in each of them.
    """
    peak = PeakMemory()

    def sample(over: threading.Event) -> None:
        while True:
            peak.megabytes = max(peak.megabytes, _megabytes_below(leader.pid))
            if over.wait(LOOK_S):
                return

    with background_thread(sample):
        yield peak


def _megabytes_below(pid: int) -> int:
    import psutil

    total = 0
    with suppress(psutil.Error):
        # Asked anew each time: a stage's launcher starts and ends processes as it goes.
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):  # it ended meanwhile
                total += process.memory_info().rss
    return round(total / 1e6)

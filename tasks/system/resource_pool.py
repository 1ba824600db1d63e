"""How many stages fit side by side on this machine: a semaphore weighted by cores and memory, first come first served."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class ResourcePool:
    """`total` cores and `memory_gb` to share. A stage that asks for more than there are gets all of them."""

    def __init__(self, total: int | None = None, memory_gb: float | None = None):
        self.total = total or len(os.sched_getaffinity(0))
        self.free = self.total
        self.memory_gb = self.free_gb = _machine_gb() if memory_gb is None else memory_gb
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def acquire(self, cores: int, stopped: Callable[[], bool] = lambda: False, memory_gb: float = 0.0) -> Iterator[int]:
        """Waits until `cores` and `memory_gb` are free, or `stopped()`; yields how many cores were taken (0 when stopped)."""
        count, memory = min(cores, self.total), min(memory_gb, self.memory_gb)
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            # First come first served: otherwise small stages would pass a large one by for as long as there are any.
            while not stopped() and (self._queue[0] is not ticket or self.free < count or self.free_gb < memory):
                self._changed.wait(timeout=0.5)
            if stopped():
                count, memory = 0, 0.0
            self._queue.remove(ticket)
            self._give(-count, -memory)
        try:
            yield count
        finally:
            with self._changed:
                self._give(count, memory)

    def _give(self, count: int, memory_gb: float) -> None:
        self.free += count
        self.free_gb += memory_gb
        self._changed.notify_all()


def _machine_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9

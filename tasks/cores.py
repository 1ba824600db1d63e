"""How many stages fit side by side: a semaphore weighted by cores, first come first served."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cores:
    """`total` cores to share. A stage that asks for more than there are gets all of them."""

    def __init__(self, total: int | None = None):
        self.total = total or len(os.sched_getaffinity(0))
        self.free = self.total
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, wanted: int, stopped: Callable[[], bool] = lambda: False) -> Iterator[int]:
        """Waits for `wanted` cores, or until `stopped()`; yields how many were taken (0 when stopped)."""
        count = min(wanted, self.total)
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            while not stopped() and (self._queue[0] is not ticket or self.free < count):
                self._changed.wait(timeout=0.5)
            count = 0 if stopped() else count
            self.free -= count
            self._queue.remove(ticket)
            self._changed.notify_all()
        try:
            yield count
        finally:
            with self._changed:
                self.free += count
                self._changed.notify_all()

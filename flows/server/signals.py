"""Ctrl-C and SIGTERM end a run in good order."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import FrameType


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the stages at work; their tasks then end normally, so Prefect gets their states and no slot stays taken.

    A second signal ends this process at once.
    """
    if threading.current_thread() is not threading.main_thread():  # Python allows signal handlers there alone
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    calls = count()

    def handler(number: int, frame: FrameType | None) -> None:
        if next(calls):
            os._exit(128 + number)  # not sys.exit: that waits for the threads of the stages
        stop()

    earlier = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, old in zip(numbers, earlier, strict=True):
            signal.signal(number, old)

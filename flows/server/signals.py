"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP) end a run in good order."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import FrameType


def stop_signals() -> list[signal.Signals]:
    """The signals that ask a run to stop."""
    # Under nohup SIGHUP is ignored from the start, and that is what the user has asked for.
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if ignored else [signal.SIGHUP])]


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the stages at work; their tasks end normally, so Prefect gets their states and no slot stays taken.

    A second signal ends this process at once.
    """
    if threading.current_thread() is not threading.main_thread():  # Python allows signal handlers there alone
        yield
        return
    numbers = stop_signals()
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

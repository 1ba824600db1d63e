"""Work in a thread beside a block of code, for as long as the block lasts."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """`work` gets an event that is set at the end of the block, and has to return soon after it; the block ends when it has."""
    over = threading.Event()
    # A daemon, so that a `work` that hangs cannot keep the process from ending.
    thread = threading.Thread(target=work, args=[over], daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()

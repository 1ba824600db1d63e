"""Work in a thread beside a block of code, for as long as the block lasts."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def background_thread(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """`work` gets an event that is set at the end of the block, and has to return soon after it; the block ends when it has."""
    over = threading.Event()
    # A daemon: the process can end, as after a second Ctrl-C, while `work` is still on its way back.
    thread = threading.Thread(target=work, args=[over], daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()

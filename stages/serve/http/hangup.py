"""What SIGHUP means: a reload, as to any server; but the end where it is the server's own terminal that was closed."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any


def has_terminal() -> bool:
    """Whether this process has a controlling terminal; one that was closed is none."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def on_hangup(reload: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """From now on, in the running event loop of the main thread."""
    loop, reloads = asyncio.get_running_loop(), set[asyncio.Task[None]]()
    attended = has_terminal()

    def hung_up() -> None:
        if attended and not has_terminal():
            signal.raise_signal(signal.SIGTERM)
            return
        task = loop.create_task(reload())
        reloads.add(task)  # the loop itself keeps no hold of a task
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, hung_up)

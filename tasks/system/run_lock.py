"""One run at a time in a checkout: a lock that the kernel frees when its holder dies, however it dies."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tasks.system.errors import ProjectError

LOCK = Path(".gr2") / "run.lock"


class Busy(ProjectError):
    """Another run is at work in this checkout."""


@contextmanager
def run_lock(root: Path, wait: bool = False, what: str = "gr2 run") -> Iterator[None]:
    """Holds the checkout at `root`. While another does: waits and says so if `wait`, else Busy, which names the holder (`what`, pid, time).

    Processes started meanwhile do not hold it: Python's files are not inherited across exec.
    """
    path = root / LOCK
    path.parent.mkdir(exist_ok=True)
    with path.open("a+", encoding="utf-8") as lock:  # never removed: whoever waits for it waits for this very file
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise Busy(f"{holder(root)}; one run at a time works in a checkout: wait for it to end, or stop it") from None
            print(f"waiting: {holder(root)}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(json.dumps({"what": what, "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}))
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)
            fcntl.flock(lock, fcntl.LOCK_UN)


def holder(root: Path) -> str:
    """Who holds the lock, for people. What a killed holder wrote still stands there: ask only when the lock was found taken."""
    try:
        found = json.loads((root / LOCK).read_text(encoding="utf-8"))
        return f"{found['what']} (pid {found['pid']}) is at work in {root} since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return f"another run is at work in {root}"

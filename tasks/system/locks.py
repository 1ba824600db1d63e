"""Locks between processes: on a file, on the run of a checkout, and on the whole project.

The kernel frees each of them when its holder ends, however it ends (kill -9 too), and no process that the holder starts inherits it:
Python opens files so that they are closed on exec. Lock files are never removed: whoever waits for one waits for that very file.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.system.errors import ProjectError

LOCK = Path(".gr2") / "run.lock"  # its text says who holds it
AT_WORK = Path(".gr2") / "at-work"
DVC_LOCK = Path(".dvc") / "tmp" / "rwlock"
EXPERIMENTS = Path(".dvc") / "tmp" / "exps"


class Busy(ProjectError):
    """Another run is at work in this checkout."""


@contextmanager
def file_lock(path: Path, wait: bool = False) -> Iterator[bool]:
    """Whether the exclusive lock on `path`, made if it is missing, is held in the block: always with `wait`, else if it was free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the fallback for file systems that have no flock: it marks a lock by a file, which a killed holder would leave behind.
    # Not per thread, so that another thread may end the block. The mode is that of every other file, not of a secret.
    lock = FileLock(path, thread_local=False, fallback_to_soft=False, mode=0o644)
    held = True
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        held = False
    try:
        yield held
    finally:
        if held:
            lock.release()


@contextmanager
def shared_file_lock(path: Path) -> Iterator[bool]:
    """Whether a shared lock on `path` is held in the block: any number of them, but none beside an exclusive `file_lock`.

    By flock itself, on which filelock builds its exclusive lock: its own ReadWriteLock keeps its state in an SQLite database, so it
    would not exclude a `file_lock` on the same file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        held = True
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            held = False
        yield held


@contextmanager
def run_lock(root: Path, wait: bool = False, what: str = "gr2 run") -> Iterator[None]:
    """Holds the checkout at `root` for one run. While another does: waits and says so if `wait`, else Busy, which names the holder
    (`what`, pid, time)."""
    path = root / LOCK
    with file_lock(path) as free:
        if free:
            with _signed(path, what):
                yield
            return
    if not wait:
        raise Busy(f"{holder(root)}; one run at a time works in a checkout: wait for it to end, or stop it")
    print(f"waiting: {holder(root)}", flush=True)
    with file_lock(path, wait=True), _signed(path, what):
        yield


@contextmanager
def _signed(path: Path, what: str) -> Iterator[None]:
    """Writes into the lock file who holds it. In place: a file moved over it would be another file, and another lock."""
    path.write_text(json.dumps({"what": what, "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}), "utf-8")
    try:
        yield
    finally:
        path.write_text("", "utf-8")


def holder(root: Path) -> str:
    """Who holds the run lock, for people. What a killed holder wrote is still in the file: ask only when the lock was found taken."""
    try:
        entry = json.loads((root / LOCK).read_text(encoding="utf-8"))
        return f"{entry['what']} (pid {entry['pid']}) is at work in {root} since {entry['since']}"
    except (ValueError, KeyError, TypeError):
        return f"another run is at work in {root}"


@contextmanager
def shared_lock(root: Path) -> Iterator[None]:
    """Held by each of any number of runs in the project. ProjectError while something holds the `exclusive_lock`."""
    with shared_file_lock(root / AT_WORK) as held:
        if not held:
            raise ProjectError("`gr2 gc` or another command has the project for itself just now; try again in a moment")
        yield


@contextmanager
def exclusive_lock(root: Path, purpose: str) -> Iterator[None]:
    """The whole project, for what must be alone in it (collecting garbage, queueing experiments).

    ProjectError, naming `purpose`, while a run (a scheduled one, too) is at work here or in a workspace on the same cache.
    """
    busy = f"a run is at work; {purpose} waits for none, so try again when it is done"
    with file_lock(root / AT_WORK) as held:
        if not held:
            raise ProjectError(busy)
        # Not waited for: a run takes run.lock first and at-work second, so each could wait for the other.
        with run_lock(root, what=purpose):
            for folder in (root, *workspaces(root), *(root / EXPERIMENTS).glob("tmp*")):
                if (process := dvc_process(folder)) is not None:
                    raise ProjectError(f"DVC is at work in {os.path.relpath(folder, root)} ({process}); {purpose} needs it to be done")
            for copy in workspaces(root):
                with file_lock(copy / AT_WORK) as free:
                    if not free:
                        raise ProjectError(f"{os.path.relpath(copy, root)}: {busy}")
            yield


def workspaces(root: Path) -> list[Path]:
    """Workspaces of the project that keep their outputs in its cache: those of the controls."""
    return sorted(path.parent for path in (root / ".gr2").glob("*/*/.dvc"))


def dvc_process(folder: Path) -> str | None:
    """A living process that DVC has down as reading or writing in `folder`."""
    try:
        record = json.loads((folder / DVC_LOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    entries = [*record.get("write", {}).values(), *(entry for readers in record.get("read", {}).values() for entry in readers)]
    live_entry = next((entry for entry in entries if entry["pid"] != os.getpid() and _alive(entry["pid"])), None)
    return f"process {live_entry['pid']}: {live_entry['cmd']}" if live_entry else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True

"""Who is at work in a project: runs share it; what must be alone (collecting garbage, queueing experiments) takes it whole.

A lock on a file of .gr2, which the kernel lets go when the process ends, however it ends; and DVC's own record of its processes.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.system.errors import ProjectError
from tasks.system.run_lock import run_lock

LOCK = Path(".gr2") / "at-work"
DVC_LOCK = Path(".dvc") / "tmp" / "rwlock"
EXPERIMENTS = Path(".dvc") / "tmp" / "exps"


@contextmanager
def working(root: Path) -> Iterator[None]:
    """Shared: any number of runs. ProjectError while something has the project for itself."""
    with _held(root, fcntl.LOCK_SH, "`gr2 gc` or another command has the project for itself just now; try again in a moment"):
        yield


@contextmanager
def alone(root: Path, purpose: str) -> Iterator[None]:
    """Whole: ProjectError, naming `purpose`, while a run (a scheduled one, too) is at work here or in a workspace on the same cache."""
    busy = f"a run is at work; {purpose} waits for none, so try again when it is done"
    with _held(root, fcntl.LOCK_EX, busy), run_lock(root, what=purpose):
        for folder in (root, *workspaces(root), *(root / EXPERIMENTS).glob("tmp*")):
            if (process := dvc_process(folder)) is not None:
                raise ProjectError(f"DVC is at work in {os.path.relpath(folder, root)} ({process}); {purpose} needs it to be done")
        for copy in workspaces(root):
            with _held(copy, fcntl.LOCK_EX, f"{os.path.relpath(copy, root)}: {busy}"):
                pass
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
    found = next((entry for entry in entries if entry["pid"] != os.getpid() and _alive(entry["pid"])), None)
    return f"process {found['pid']}: {found['cmd']}" if found else None


@contextmanager
def _held(root: Path, kind: int, busy: str) -> Iterator[None]:
    (root / LOCK).parent.mkdir(exist_ok=True)
    with (root / LOCK).open("w") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProjectError(busy) from None
        yield


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

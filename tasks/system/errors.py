"""What can go wrong around a stage, as messages that say what to do."""

import difflib
import errno
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

# A quota that is used up stops a user as a full disk does, under another number.
FULL = (errno.ENOSPC, errno.EDQUOT)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class ProjectError(Exception):
    """The project or the request is wrong: a missing file, an unknown name, edits that would be lost. The message is the whole story."""


class StageFailed(Exception):
    """A stage ended badly. The message is the stage's own; `stage` names it. `log`: all that it printed, if it ran on this machine."""

    def __init__(self, stage: str, message: str, log: Path | None = None):
        super().__init__(message)
        self.stage, self.log = stage, log


class Interrupted(StageFailed):
    """The run was stopped from outside (Ctrl-C, SIGTERM) while this stage was at work or waited."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing when no valid name resembles `name`."""
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.4)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def fault_of_machine(error: BaseException) -> str:
    """What is wrong with the machine, and what to do about it, when that is what ended a command: a full disk, no right to write.
    Empty for any other error, which is a bug. DVC and Prefect wrap such errors, so the causes of `error` are looked at, too."""
    return next(filter(None, map(_fault_of_machine, _causes(error))), "")


def _fault_of_machine(error: BaseException) -> str:
    place = f" of {error.filename}" if isinstance(error, OSError) and error.filename else ""
    words = str(error).lower() if isinstance(error, sqlite3.Error) else ""
    if (isinstance(error, OSError) and error.errno in FULL) or "is full" in words or "disk i/o error" in words:
        return f"no space left on the disk{place} ({error}); make room there, or where DVC keeps its databases, then run again"
    if (isinstance(error, OSError) and error.errno in READ_ONLY) or "readonly" in words or "unable to open database" in words:
        return f"cannot write ({error}); gr2 keeps locks and records in .gr2, and DVC in .dvc: make these writable, or work in a copy"
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    # By identity: a chain of causes can be a circle, which Python allows.
    visited: set[int] = set()
    while error is not None and id(error) not in visited:
        visited.add(id(error))
        yield error
        error = error.__cause__ or error.__context__

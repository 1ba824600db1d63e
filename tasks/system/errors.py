"""What can go wrong around a stage, as messages that say what to do."""

import difflib
from collections.abc import Iterable
from pathlib import Path


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

"""Tells a stage's words from DVC's around them: its progress, what to show, what to keep, and what it said when it failed.

Secrets of the environment are blanked out in all that leaves this module.
"""

import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TextIO

from tasks.system.progress import StageProgress, read_note, read_progress
from tasks.system.redaction import secrets, without_secrets

# What `dvc repro -s` says besides the stage itself.
CHATTER = re.compile(
    r"(Running stage '.*':|> .+|(Updating|Generating) lock file .*|To track the changes with git, run:|To enable auto staging, run:"
    r"|\t(git add|dvc config) .*|Use `dvc push` to send.*|Stage '.*' (didn't change, skipping|is cached - skipping run.*)"
    r"|Data and pipelines are up to date\.|WARNING: '.*' is empty\.|(Waiting to acquire lock|If DVC froze).*)"
)
COMMAND_FAILED = re.compile(r"failed to run: .*, exited with (?P<code>-?\d+)$", re.DOTALL)
TAIL_LINES = 200
MESSAGE_LINES = 10
PROGRESS_EVERY_S = 10.0


@dataclass
class Callbacks:
    """What the caller hears while a stage is at work, in the threads that read it. First argument: the stage.

    `note`: words for a person, of the stage or about it. `output`: every line of the stage's log. `begins`: just before DVC is asked for
    the stage; `started`: DVC starts its command.
    """

    note: Callable[[str, str], None] = lambda stage, text: None
    progress: Callable[[str, StageProgress], None] = lambda stage, progress: None
    started: Callable[[str], None] = lambda stage: None
    output: Callable[[str, str], None] = lambda stage, text: None
    begins: Callable[[str], None] = lambda stage: None


class DvcOutput:
    """Follows one `dvc repro -s` process. `ran`: the stage's command was started; `restored`: its outputs came from the cache instead."""

    def __init__(self, stage: str, log: TextIO, callbacks: Callbacks):
        self.stage, self.log, self.callbacks = stage, log, callbacks
        self.ran = self.restored = False
        self.tail: dict[str, deque[str]] = {"stdout": deque(maxlen=TAIL_LINES), "stderr": deque(maxlen=TAIL_LINES)}
        self._guard = threading.Lock()
        self._secrets = secrets()
        self._logged_progress = 0.0
        self.peak_memory_mb = 0
        self.full = ""  # the folder for want of whose room DVC was ended (tasks.system.disk_watchdog)

    @property
    def errors(self) -> str:
        return "\n".join(self.tail["stderr"])

    def follow(self, child: subprocess.Popen[bytes]) -> None:
        """Reads both streams to their end."""
        assert child.stdout and child.stderr
        # Both streams are read at once: a child that fills the pipe nobody reads would stop and wait for ever.
        stderr_reader = threading.Thread(target=self._read, args=("stderr", child.stderr), daemon=True)
        stderr_reader.start()
        self._read("stdout", child.stdout)
        stderr_reader.join()

    def message(self, code: int) -> str:
        """What the stage said when it failed, without DVC's wrapper around it."""
        return without_secrets(self._message(code), self._secrets)

    def _message(self, code: int) -> str:
        if self.full:
            return f"No space left on the disk of {self.full}; make room, then run again"
        error_lines = list(self.tail["stderr"])
        error_prefix = f"ERROR: failed to reproduce '{self.stage}'" if self.ran else "ERROR: "
        # The last such line: a stage may itself print one that begins alike.
        position = max((position for position, line in enumerate(error_lines) if line.startswith(error_prefix)), default=len(error_lines))
        cause = (
            "\n".join(error_lines[position:]).removeprefix(f"ERROR: failed to reproduce '{self.stage}': ").removeprefix("ERROR: ").strip()
        )
        failed = COMMAND_FAILED.search(cause)
        if cause and not failed:
            return cause  # DVC's own complaint: a missing dep, an output the stage did not write
        message = stage_message(self.stage, error_lines[:position]) or "\n".join(list(self.tail["stdout"])[-MESSAGE_LINES:])
        code = int(failed["code"]) if failed else code
        if code in (-9, 137):
            message = f"{message}\nkilled (signal 9), most likely for want of memory".strip()
        return message or f"exit code {code}, without a word; see .gr2/logs/{self.stage}.log"

    def _read(self, stream: str, pipe: IO[bytes]) -> None:
        for text, transient in _pieces(pipe):
            with self._guard:
                self._take(stream, text, transient)

    def _take(self, stream: str, text: str, transient: bool) -> None:
        if not text.strip():
            return
        shown = without_secrets(text, self._secrets)
        progress = read_progress(shown)
        if progress or transient:
            # A bar is redrawn many times a second; the log keeps one line in ten seconds.
            if time.monotonic() - self._logged_progress > PROGRESS_EVERY_S:
                self._logged_progress = time.monotonic()
                self._write(shown)
            if progress:
                self.callbacks.progress(self.stage, progress)
            return
        if CHATTER.fullmatch(text):
            if text == f"Running stage '{self.stage}':":
                self.ran = True
                self.callbacks.started(self.stage)
            self.restored |= text.startswith(f"Stage '{self.stage}' is cached")
            return
        note = read_note(shown)
        self.tail[stream].append(read_note(text) or text)
        if not text.startswith(f"ERROR: failed to reproduce '{self.stage}'"):
            self._write(note or shown)
        if note:
            self.callbacks.note(self.stage, note)

    def _write(self, shown: str) -> None:
        print(shown, file=self.log, flush=True)
        self.callbacks.output(self.stage, shown)


def stage_message(stage: str, lines: list[str]) -> str:
    """The message among the last lines of stderr: from `<stage>: ` on, or the exception below a traceback, or the last few."""
    recent = lines[-20:]
    for position in range(len(recent) - 1, -1, -1):
        if recent[position].startswith(f"{stage}: "):
            return "\n".join(recent[position:])[len(stage) + 2 :]
    traceback = max((position for position, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")), default=-1)
    if traceback >= 0:
        exception = [position for position, line in enumerate(lines) if position > traceback and not line.startswith(" ")]
        if exception:
            return "\n".join(lines[exception[0] :][:MESSAGE_LINES])
    return "\n".join(lines[-MESSAGE_LINES:])


def _pieces(pipe: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """(text, whether it ended in a carriage return alone, as a progress bar's lines do)."""
    rest = b""
    while chunk := pipe.read1(65536):  # type: ignore[attr-defined]
        rest += chunk
        # A lone carriage return ends a bar's line, the one of \r\n does not; and \r at the end of a chunk may be either, so it waits.
        *whole, rest = re.split(rb"(?<=\n)|(?<=\r)(?=[^\n])", rest)
        for piece in whole:
            yield _text(piece), piece.endswith(b"\r")
    if rest:
        yield _text(rest), False


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", errors="replace").rstrip("\r\n")

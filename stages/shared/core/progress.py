"""How far a stage is, and notes for whoever runs it: lines for `gr2 run`, which sets GR2_PROGRESS; a bar and plain text without it.

A line is `::progress DONE/TOTAL PART` or `::note TEXT`, on standard error; tasks/system/progress.py reads them.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

from stages.shared.core.launch import is_main_process

T = TypeVar("T")
VARIABLE = "GR2_PROGRESS"
EVERY_S = 0.5  # no more lines than a person can follow
BAR_AFTER_S = 3.0  # what is done sooner needs no bar


class Progress:
    """Counts what is done of one part of a stage's work. `total` None: not known. Of several processes, the main one alone speaks."""

    def __init__(self, part: str, total: int | None, done: int = 0, unit: str = "it"):
        self.part, self.total, self.done = part, total or 0, done
        self._speaks = is_main_process()
        self._bar: tqdm[None] | None = None
        self._written = float("-inf")  # when the last line was; time.monotonic
        if self._speaks and VARIABLE not in os.environ:
            self._bar = tqdm(total=total, initial=done, desc=part, unit=unit, unit_scale=unit == "B", delay=BAR_AFTER_S)
        self._tell()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def add(self, count: int = 1) -> None:
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        else:
            self._tell()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _tell(self) -> None:
        now = time.monotonic()
        is_last = self.total > 0 and self.done >= self.total
        if self._speaks and self._bar is None and (is_last or now - self._written >= EVERY_S):
            self._written = now
            _write(f"::progress {self.done}/{self.total} {self.part}")


def tracked(items: Iterable[T], part: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """`items`, with the progress through them. `total`: how many, where they do not know their length."""
    known = len(items) if total is None and isinstance(items, Sized) else total
    with Progress(part, known, unit=unit) as progress:
        for item in items:
            yield item
            progress.add()


def note(text: str) -> None:
    """Something that whoever runs the stage should know; one line."""
    if VARIABLE in os.environ:
        _write(f"::note {text}")
    else:
        print(text, flush=True)


def _write(line: str) -> None:
    # The \r ends what a library's bar may have left without an end of line.
    sys.stderr.write(f"\r{line}\n")
    sys.stderr.flush()

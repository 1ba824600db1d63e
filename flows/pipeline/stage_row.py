"""One stage of a run as the console shows it: its state, its progress, and the time that is left of the part it is at."""

import time
from dataclasses import dataclass

from tasks.system.progress import StageProgress

SOONEST_ESTIMATE_S = 2.0  # of work at a part: before that its rate says little


@dataclass
class StageRow:
    """`began`, `part_began`, `shown`: readings of `time.monotonic`. `part_start`: what was done of the part when it was first heard of."""

    state: str = "Waiting"
    began: float = 0.0
    seconds: float = 0.0
    peak_memory_mb: int = 0
    note: str = ""  # how it ended
    progress: StageProgress | None = None
    part_began: float = 0.0
    part_start: int = 0
    shown: float = 0.0  # when a plain line last told of it

    def start(self) -> None:
        self.state, self.began = "Running", time.monotonic()
        self.shown = self.began

    def advance(self, progress: StageProgress) -> None:
        last, now = self.progress, time.monotonic()
        if last is None or (last.part, last.total) != (progress.part, progress.total) or progress.done < last.done:
            self.part_began, self.part_start = now, progress.done
        self.progress = progress

    def end(self, state: str, seconds: float, note: str, peak_memory_mb: int = 0) -> None:
        self.state, self.seconds, self.note, self.peak_memory_mb, self.progress = state, seconds, note, peak_memory_mb, None

    def remaining_s(self, now: float) -> float | None:
        """Seconds until this part of the work is done, at the rate since it began; None while that cannot be told."""
        if self.progress is None or not self.progress.total:
            return None
        done, spent = self.progress.done - self.part_start, now - self.part_began
        if done <= 0 or spent < SOONEST_ESTIMATE_S:
            return None
        return max(0, self.progress.total - self.progress.done) * spent / done

    def progress_text(self) -> str:
        """For example `training 120/260, 46 %, 1:20 left`; empty before the stage has said anything."""
        if self.progress is None:
            return ""
        done, total = self.progress.done, self.progress.total
        parts = [f"{self.progress.part} {count(done)}{f'/{count(total)}' if total else ''}".strip()]
        if total:
            parts.append(f"{100 * min(done, total) // total} %")
        remaining = self.remaining_s(time.monotonic())
        if remaining is not None and done < total:
            parts.append(f"{clock(remaining)} left")
        return ", ".join(parts)


def clock(seconds: float) -> str:
    """m:ss, or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: int) -> str:
    """Large numbers, as of bytes, in short."""
    for unit, size in (("G", 1_000_000_000), ("M", 1_000_000)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)

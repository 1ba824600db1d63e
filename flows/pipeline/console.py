"""What a person sees of a run: each stage's output with its name in front, how long it has been running, a table at the end."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

COLOURS = {"Completed": "green", "Cached": "cyan", "Failed": "red", "Skipped": "yellow", "Running": "bold"}
PROGRESS_EVERY_S = 10.0


@dataclass
class StageRow:
    """`began`, `progress_shown`: readings of `time.monotonic`. `note`: the last progress line, or how the stage ended."""

    state: str = "Waiting"
    began: float = 0.0
    seconds: float = 0.0
    note: str = ""
    progress_shown: float = 0.0


class RunConsole:
    """Live on a terminal, plain lines otherwise. Methods may be called from any thread."""

    def __init__(self, names: Iterable[str], console: Console | None = None):
        self.rows = {name: StageRow() for name in names}
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._width = max((len(name) for name in self.rows), default=0)
        self._guard = threading.Lock()  # lines of two stages must not mix
        self._live = (
            Live(get_renderable=self._running, console=self.console, refresh_per_second=4, transient=True)
            if self.console.is_terminal
            else None
        )

    def __enter__(self) -> "RunConsole":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._live:
            self._live.stop()
        self.console.print(self.table(), soft_wrap=False)  # soft wrapping loses the newline behind a table

    def started(self, name: str) -> None:
        row = self.rows[name]
        row.state, row.began = "Running", time.monotonic()
        self._print(name, "running", "bold")

    def line(self, name: str, text: str) -> None:
        self._print(name, text)

    def progress(self, name: str, text: str) -> None:
        """A progress bar's line: shown next to the stage on a terminal, otherwise printed every ten seconds."""
        row = self.rows[name]
        row.note = text.strip()
        if not self._live and time.monotonic() - row.progress_shown > PROGRESS_EVERY_S:
            row.progress_shown = time.monotonic()
            self._print(name, text.strip())

    def finished(self, name: str, state: str, seconds: float = 0.0, note: str = "") -> None:
        row = self.rows[name]
        row.state, row.seconds, row.note = state, seconds, note
        taken = f" in {seconds:.1f} s" if state in ("Completed", "Failed") and seconds else ""
        self._print(name, f"{state}{taken}" + (f": {note}" if note else ""), COLOURS.get(state, ""))

    def table(self) -> Table:
        table = Table("stage", "state", box=None, pad_edge=False)
        table.add_column("seconds", justify="right")
        for name, row in self.rows.items():
            table.add_row(name, Text(row.state, COLOURS.get(row.state, "")), f"{row.seconds:.1f}" if row.seconds else "-")
        return table

    def _print(self, name: str, text: str, style: str = "") -> None:
        with self._guard:
            self.console.print(Text.assemble((f"{name:<{self._width}} | ", "dim"), (text, style)))

    def _running(self) -> Group:
        now = time.monotonic()
        lines = [
            Text.assemble(
                (f"{name:<{self._width}} ", "bold"), f"{now - row.began:6.0f} s  ", (row.note, "dim"), no_wrap=True, overflow="ellipsis"
            )
            for name, row in self.rows.items()
            if row.state == "Running"
        ]
        done = sum(row.state not in ("Waiting", "Running") for row in self.rows.values())
        return Group(*lines, Text(f"{done} of {len(self.rows)} stages done", "dim"))

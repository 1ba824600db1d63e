"""What a person sees of a run: on a terminal one live line a stage, elsewhere plain lines and a table at the end.

What stages print goes to .gr2/logs; here stand their progress, what they note for a person, and how they ended.
"""

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flows.pipeline.stage_row import StageRow
from tasks.system.progress import StageProgress

COLOURS = {"Completed": "green", "Cached": "cyan", "Failed": "red", "Skipped": "yellow", "Running": "bold", "Waiting": "dim"}
PROGRESS_EVERY_S = 10.0


class RunConsole:
    """Methods may be called from any thread."""

    def __init__(self, names: Iterable[str], console: Console | None = None):
        self.rows = {name: StageRow() for name in names}
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._width = max((len(name) for name in self.rows), default=0)
        self._guard = threading.Lock()  # lines of two stages must not mix
        self._live: Live | None = None
        if self.console.is_terminal:
            self._live = Live(get_renderable=self.table, console=self.console, refresh_per_second=4)

    def __enter__(self) -> "RunConsole":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._live:
            self._live.stop()  # its last state stays on the screen
        else:
            self.console.print(self.table(), soft_wrap=False)  # soft wrapping loses the newline behind a table

    def started(self, name: str) -> None:
        self.rows[name].start()
        if not self._live:
            self._print(name, "running", "bold")

    def note(self, name: str, text: str) -> None:
        """What a stage, or gr2 about it, has to say to a person."""
        self._print(name, text)

    def progress(self, name: str, progress: StageProgress) -> None:
        """Shown in the stage's line on a terminal, otherwise printed every ten seconds."""
        row = self.rows[name]
        row.advance(progress)
        if not self._live and time.monotonic() - row.shown > PROGRESS_EVERY_S:
            row.shown = time.monotonic()
            self._print(name, row.progress_text())

    def finished(self, name: str, state: str, seconds: float = 0.0, note: str = "", peak_memory_mb: int = 0) -> None:
        self.rows[name].end(state, seconds, note, peak_memory_mb)
        if self._live and state != "Failed":
            return  # its line says it
        duration = f" in {seconds:.1f} s" if state in ("Completed", "Failed") and seconds else ""
        duration += f", {peak_memory_mb:,} MB" if peak_memory_mb else ""
        self._print(name, f"{state}{duration}" + (f": {note}" if note else ""), COLOURS.get(state, ""))

    def log_tail(self, name: str, log: Path, lines: Iterable[str]) -> None:
        """The end of what a failed stage printed, and where the whole is."""
        for line in lines:
            self._print(name, f"  {line}", "dim")
        self._print(name, f"all that it printed: {log}")

    def table(self) -> Table:
        table = Table("stage", "state", box=None, pad_edge=False)
        table.add_column("seconds", justify="right")
        table.add_column("peak MB", justify="right")
        if self._live:
            table.add_column("", no_wrap=True, overflow="ellipsis")
        for name, row in self.rows.items():
            memory = f"{row.peak_memory_mb:,}" if row.peak_memory_mb else "-"
            cells: list[RenderableType] = [Text(name), Text(row.state, COLOURS.get(row.state, "")), Text(_time(row)), Text(memory)]
            if self._live:
                cells.append(Text(row.progress_text() if row.state == "Running" else row.note.partition("\n")[0], "dim"))
            table.add_row(*cells)
        return table

    def _print(self, name: str, text: str, style: str = "") -> None:
        with self._guard:
            self.console.print(Text.assemble((f"{name:<{self._width}} | ", "dim"), (text, style)))


def _time(row: StageRow) -> str:
    if row.state == "Running":
        return f"{time.monotonic() - row.began:.0f}"
    return f"{row.seconds:.1f}" if row.seconds else "-"

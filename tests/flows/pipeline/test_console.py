"""What a person sees, on a terminal and elsewhere."""

import io

import pytest
from rich.console import Console

from flows.pipeline import stage_row
from flows.pipeline.console import RunConsole
from tasks.system.progress import StageProgress


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("flows.pipeline.stage_row.time", clock)
    monkeypatch.setattr("flows.pipeline.console.time", clock)
    return clock


def test_time_left_is_that_of_the_part_at_its_own_rate(clock: Clock) -> None:
    row = stage_row.StageRow()
    row.start()
    assert row.progress_text() == ""
    clock.now += 50  # before the part is heard of: not counted
    row.advance(StageProgress(20, 260, "training"))
    assert row.progress_text() == "training 20/260, 7 %"
    clock.now += 40
    row.advance(StageProgress(100, 260, "training"))
    assert row.progress_text() == "training 100/260, 38 %, 1:20 left"  # 80 steps in 40 s, 160 to go
    row.advance(StageProgress(1, 4, "saving"))
    assert row.progress_text() == "saving 1/4, 25 %", "a new part begins anew"
    row.advance(StageProgress(7_500_000, 0, "u.data"))
    assert row.progress_text() == "u.data 7.5M", "a total that is not known"
    row.end("Completed", 91.0, "")
    assert row.progress_text() == ""


def test_plain_lines_come_every_ten_seconds(clock: Clock) -> None:
    console = RunConsole(["a", "b"], Console(file=io.StringIO(), width=100))
    with console:
        console.started("a")
        for done in range(1, 26):
            clock.now += 1
            console.progress("a", StageProgress(done, 25, "reading"))
        console.note("a", "3 rows were bad")
        console.finished("a", "Completed", 25.0, peak_memory_mb=1234)
        console.finished("b", "Cached")
    lines = console.console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.rstrip() for line in lines] == [
        "a | running",
        "a | reading 11/25, 44 %, 0:14 left",
        "a | reading 22/25, 88 %, 0:03 left",
        "a | 3 rows were bad",
        "a | Completed in 25.0 s, 1,234 MB",
        "b | Cached",
        "stage  state      seconds  peak MB",
        "a      Completed     25.0    1,234",
        "b      Cached           -        -",
    ]


def test_a_terminal_has_one_line_a_stage(clock: Clock) -> None:
    console = RunConsole(["a", "b"], Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None))
    with console:
        console.started("a")
        console.progress("a", StageProgress(0, 25, "reading"))
        clock.now += 65
        console.progress("a", StageProgress(10, 25, "reading"))
        with console.console.capture() as shown:
            console.console.print(console.table(), soft_wrap=False)
        console.note("b", "waiting for a worker")
        console.finished("a", "Completed", 65.0)
    stages = [line.rstrip() for line in shown.get().splitlines()]
    assert "a      Running       65        -  reading 10/25, 40 %, 1:38 left" in stages and "b      Waiting        -        -" in stages
    text = console.console.file.getvalue()  # type: ignore[attr-defined]
    assert "b | waiting for a worker" in text and "a | " not in text, "its own line says how it ended"

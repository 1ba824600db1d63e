"""Plans and statuses as a person reads them."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tasks.run.origin import ELSEWHERE
from tasks.run.plan import Plan

COLOURS = {"run": "yellow", "cached": "cyan", "current": "green", "changed": "yellow", "never run": "yellow"}


def plan_view(plan: Plan) -> RenderableType:
    table = Table("stage", "action", "why", box=None, pad_edge=False)
    for stage in plan.stages:
        table.add_row(stage.name, Text(stage.action, COLOURS[stage.action]), Text("\n".join(map(str, stage.causes))))
    running = sum(stage.action == "run" for stage in plan.stages)
    summary = (
        "Nothing to run." if not running else f"{running} of {len(plan.stages)} stages would run; those behind others may yet end Cached."
    )
    return Group(table, Text(summary, "bold"))


def status_view(rows: list[dict[str, Any]]) -> RenderableType:
    """Seconds and memory are those of the last run, and where that ran nothing, of the run that made what it restored."""
    table = Table("stage", "status", "made", "last run", "when", box=None, pad_edge=False)
    table.add_column("seconds", justify="right")
    table.add_column("peak MB", justify="right")
    for row in rows:
        last = row["last_run"] or {"state": "-", "time": "-", "seconds": None, "peak_memory_mb": None}
        measured = row["made"] or last if last["seconds"] is None else last
        seconds = "-" if measured["seconds"] is None else f"{measured['seconds']:.1f}"
        memory = "-" if measured["peak_memory_mb"] is None else f"{measured['peak_memory_mb']:,}"
        status = Text(row["status"], COLOURS[row["status"]])
        table.add_row(row["name"], status, Text(_origin(row["made"])), last["state"], last["time"][:19], seconds, memory)
    if not any(row["made"] and row["made"]["place"] == ELSEWHERE for row in rows):
        return table
    note = "Made elsewhere: by another machine, or by a plain dvc repro. Another processor rounds differently (docs/changes.md)."
    return Group(table, Text(note, "dim"))


def _origin(made: dict[str, Any] | None) -> str:
    if made is None:
        return "-"
    return f"{made['place']} ({made['host']})" if made["place"] == ELSEWHERE and made["host"] else str(made["place"])

"""Plans and statuses as a person reads them."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

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
    table = Table("stage", "status", "last run", "when", box=None, pad_edge=False)
    table.add_column("seconds", justify="right")
    for row in rows:
        last = row["last_run"] or {"state": "-", "time": "-", "seconds": None}
        seconds = "-" if last["seconds"] is None else f"{last['seconds']:.1f}"
        table.add_row(row["name"], Text(row["status"], COLOURS[row["status"]]), last["state"], last["time"][:19], seconds)
    return table

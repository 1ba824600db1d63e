"""How the project stands: each stage's state now, and its last run as the lineage events tell it."""

from pathlib import Path
from typing import Any

from tasks.ledger.events import read_events
from tasks.project.graph import Graph
from tasks.run.plan import Plan, make_plan

ENDED = {"COMPLETE": "Completed", "FAIL": "Failed", "ABORT": "Stopped"}


def project_status(root: Path, graph: Graph) -> list[dict[str, Any]]:
    """One row a stage, upstream first: name, status (current, changed, never run), causes, last_run (state, time, seconds) or null."""
    plan = make_plan(root, graph)
    last = _last_runs(root)
    return [
        {"name": name, "status": _word(plan, name), "causes": [str(cause) for cause in plan[name].causes], "last_run": last.get(name)}
        for name in graph.order
    ]


def _word(plan: Plan, name: str) -> str:
    cause_kinds = [cause.kind for cause in plan[name].causes]
    return "never run" if "new" in cause_kinds else "changed" if cause_kinds else "current"


def _last_runs(root: Path) -> dict[str, dict[str, Any]]:
    """By stage: the newest run. One that began and never ended is Running, or was killed."""
    last: dict[str, dict[str, Any]] = {}
    for event in read_events(root):
        name, kind, time = event["job"]["name"], event.get("eventType"), str(event.get("eventTime"))
        facts = event["run"]["facets"].get("gr2_run") or {}
        if facts.get("experiment"):  # not of the workspace
            continue
        if kind == "START":
            last[name] = {"state": "Running or killed", "time": time, "seconds": None}
        elif kind in ENDED:
            state = f"Restored from the {facts['restored']}" if facts.get("restored") else ENDED[kind]
            last[name] = {"state": state, "time": time, "seconds": facts.get("seconds")}
    return last

"""How the project stands: each stage's state now, and its last run as the lineage events tell it."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.dvc.lockfile import read_lock
from tasks.ledger.events import read_events
from tasks.ledger.lines import Event
from tasks.project.graph import Graph
from tasks.run.origin import origins
from tasks.run.plan import Plan, make_plan

ENDED = {"COMPLETE": "Completed", "FAIL": "Failed", "ABORT": "Stopped"}


def project_status(root: Path, graph: Graph) -> list[dict[str, Any]]:
    """One row a stage, upstream first: name, status (current, changed, never run), causes, last_run (state, time, seconds,
    peak_memory_mb) or null, made (of what dvc.lock records: place, host, seconds, peak_memory_mb) or null."""
    plan = make_plan(root, graph)
    events = read_events(root)
    last, made = _last_runs(events), origins(read_lock(root), events)
    return [
        {
            "name": name,
            "status": _word(plan, name),
            "causes": [str(cause) for cause in plan[name].causes],
            "last_run": last.get(name),
            "made": asdict(made[name]) if name in made else None,
        }
        for name in graph.order
    ]


def _word(plan: Plan, name: str) -> str:
    cause_kinds = [cause.kind for cause in plan[name].causes]
    return "never run" if "new" in cause_kinds else "changed" if cause_kinds else "current"


def _last_runs(events: Iterable[Event]) -> dict[str, dict[str, Any]]:
    """By stage: the newest run. One that began and never ended is Running, or was killed."""
    last: dict[str, dict[str, Any]] = {}
    for event in events:
        name, kind, time = event["job"]["name"], event.get("eventType"), str(event.get("eventTime"))
        facts = event["run"]["facets"].get("gr2_run") or {}
        if facts.get("experiment"):  # not of the workspace
            continue
        if kind == "START":
            last[name] = {"state": "Running or killed", "time": time, "seconds": None, "peak_memory_mb": None}
        elif kind in ENDED:
            state = f"Restored from the {facts['restored']}" if facts.get("restored") else ENDED[kind]
            memory = facts.get("peak_memory_mb") or None
            last[name] = {"state": state, "time": time, "seconds": facts.get("seconds"), "peak_memory_mb": memory}
    return last

"""Runs that were killed: DVC goes on with its stage after a kill -9 of `gr2 run`, and what it then writes into dvc.lock nobody records.

So a run notes what it is about to hand to DVC; the next run that comes to its end records what a killed one could not.
"""

import json
from pathlib import Path

from tasks.dvc.lockfile import read_lock
from tasks.ledger.events import StageRun, entry_hash, read_events, recorded_entry
from tasks.ledger.run_context import RunContext
from tasks.project.graph import Graph
from tasks.run.origin import KILLED
from tasks.system.locks import dvc_process
from tasks.system.yaml_files import write_text

FILE = Path(".gr2") / "unfinished.json"


def journal_start(root: Path, names: list[str]) -> None:
    """Notes the stages `names`, before any of them runs and with the run lock held. The notes of a killed run are kept."""
    if stages := sorted({*names, *_noted(root)}):
        (root / FILE).parent.mkdir(exist_ok=True)
        write_text(root / FILE, json.dumps(stages) + "\n")


def record_interrupted(root: Path, graph: Graph, context: RunContext) -> list[str]:
    """To be called when no stage of this run is at work any more. Records the noted stages whose entry in dvc.lock no event knows;
    returns them. The note goes, unless a DVC process of a killed run still works here."""
    noted = _noted(root)
    if not noted:
        return []
    lock, known = read_lock(root), {recorded_entry(event) for event in read_events(root)}
    late = [name for name in noted if name in graph.stages and name in lock and entry_hash(lock[name]) not in known]
    for name in late:
        StageRun(root, graph[name], context).restored(KILLED)
    if dvc_process(root) is None:
        (root / FILE).unlink(missing_ok=True)
    return late


def _noted(root: Path) -> list[str]:
    try:
        content = json.loads((root / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [str(name) for name in content] if isinstance(content, list) else []

"""What experiments did goes into the lineage record: DVC's workers run them, and know nothing of it."""

from collections.abc import Iterable
from pathlib import Path

from tasks.dvc.revisions import locked_stages, resolve
from tasks.experiments.queue import Experiment
from tasks.ledger.events import StageRun
from tasks.ledger.log import anchor
from tasks.ledger.run_context import RunContext
from tasks.project.graph import Graph


def record_experiments(root: Path, graph: Graph, experiments: Iterable[Experiment]) -> None:
    """An end for every stage that ran, was restored or failed in those of `experiments` that are done; revision: their own commit."""
    from tasks.ledger.transport import flush

    for own in experiments:
        if own.state == "Failed":
            _failed(root, graph, own)
        commit = resolve(root, own.name) if own.state == "Completed" else None
        for name, entry in ((commit and locked_stages(root, commit)) or {}).items():
            if name in graph.stages and name in (*own.ran, *own.restored):
                StageRun(root, graph[name], RunContext({"revision": commit, "dirty": False})).of_experiment(
                    own.name, entry, name in own.ran
                )
    anchor(root)
    flush()


def _failed(root: Path, graph: Graph, own: Experiment) -> None:
    name, _, message = own.message.partition(": ")  # tasks.experiments.queue.failure
    if name in graph.stages:
        StageRun(root, graph[name], RunContext({"revision": None, "dirty": None})).fail(message, own.name)

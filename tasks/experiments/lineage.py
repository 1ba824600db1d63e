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
    """Records the end of every stage that ran, was restored or failed in the `experiments` that are done, with the experiment's commit."""
    from tasks.ledger.transport import flush

    for experiment in experiments:
        if experiment.state == "Failed":
            _failed(root, graph, experiment)
        # DVC commits only an experiment that came to its end.
        commit = resolve(root, experiment.name) if experiment.state == "Completed" else None
        for name, entry in ((commit and locked_stages(root, commit)) or {}).items():
            # dvc.lock of its commit has every stage; those that neither ran nor came back are the base's, with events of their own.
            if name in graph.stages and name in (*experiment.ran, *experiment.restored):
                StageRun(root, graph[name], RunContext({"revision": commit, "dirty": False})).of_experiment(
                    experiment.name, entry, name in experiment.ran
                )
    anchor(root)
    flush()


def _failed(root: Path, graph: Graph, experiment: Experiment) -> None:
    name, _, message = experiment.message.partition(": ")  # tasks.experiments.queue.failure
    if name in graph.stages:
        StageRun(root, graph[name], RunContext({"revision": None, "dirty": None})).fail(message, experiment.name)

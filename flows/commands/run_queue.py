"""gr2 run --queue: DVC experiments, one for each combination of the values given with --set."""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.commands import INTERRUPTED, STAGE_FAILED
from flows.pipeline.params_check import check_params
from flows.server.signals import stop_signals
from tasks.experiments import queue
from tasks.experiments.lineage import record_experiments
from tasks.experiments.queue import Experiment
from tasks.experiments.workers import Workers
from tasks.project import overrides
from tasks.project.graph import read_graph
from tasks.system.errors import ProjectError
from tasks.system.locks import exclusive_lock, shared_lock


def run_queue(root: Path, options: argparse.Namespace) -> int:
    """`gr2 run --queue`: an experiment for each combination of --set; without --set, those that are queued already."""
    with _stop_requested() as stopped:
        if options.set:
            experiments = _add_to_queue(root, options, stopped)
        elif options.stages or options.until:
            raise ProjectError("--queue: stages go with --set; what is queued already has its own")
        elif not (experiments := queue.queued(root)):
            raise ProjectError("--queue: nothing is queued; give values with --set KEY=VALUE, or without --queue run the workspace")
        if options.no_start:
            print("start them with: gr2 run --queue (or dvc queue start)")
            return 0
        with shared_lock(root):
            return _run_experiments(root, experiments, options.jobs or 1, stopped)


def _add_to_queue(root: Path, options: argparse.Namespace, stopped: Callable[[], bool]) -> list[Experiment]:
    combinations = overrides.grid(overrides.read_settings(root, options.set))
    targets = [*options.stages, *options.until]
    check_params(root, [overrides.with_overrides(root, values)[0] for values in combinations]).closure(targets)
    copied_paths = queue.paths_outside_git(root)
    with exclusive_lock(root, "queueing experiments"):  # DVC sets the edits in the workspace aside for a moment
        experiments = queue.queue(root, combinations, targets, copied_paths, stopped)
    for experiment in experiments:
        print(f"{experiment.name} | queued")
    return experiments


def _run_experiments(root: Path, experiments: list[Experiment], jobs: int, stopped: Callable[[], bool]) -> int:
    width = max(len(experiment.name) for experiment in experiments)
    graph = read_graph(root)
    try:
        Workers(root, experiments, lambda experiment, text: print(f"{experiment.name:<{width}} | {text}", flush=True)).run(jobs, stopped)
    finally:
        record_experiments(root, graph, experiments)
    done = [experiment.name for experiment in experiments if experiment.state == "Completed"]
    if stopped_names := [experiment.name for experiment in experiments if experiment.state == "Stopped"]:
        print(f"gr2: stopped; taken out of the queue: {', '.join(stopped_names)}", file=sys.stderr)
        return INTERRUPTED
    if done:
        print(f"compare them with: gr2 compare HEAD {' '.join(done)}; dvc exp show lists them all")
    return 0 if len(done) == len(experiments) else STAGE_FAILED


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether Ctrl-C, SIGTERM or SIGHUP has come.

    The signals interrupt nothing by themselves: while DVC queues, the edits in the workspace are in its stash and must come back.
    """
    signals_received: list[int] = []
    earlier = {number: signal.signal(number, lambda number, frame: signals_received.append(number)) for number in stop_signals()}
    try:
        yield lambda: bool(signals_received)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)

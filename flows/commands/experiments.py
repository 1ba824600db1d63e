"""gr2 compare, gr2 gc and gr2 promote; and gr2 run --queue: runs beside each other, and which of them are kept."""

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import INTERRUPTED, STAGE_FAILED, Commands, show
from tasks.project.graph import read_graph
from tasks.system.errors import ProjectError

if TYPE_CHECKING:
    from tasks.experiments.queue import Experiment

LISTED = 20  # unneeded objects shown one by one


def add(commands: Commands) -> None:
    sub = commands.add("compare", compare, "runs against the first of them: metrics with intervals, and what differs", json=True)
    sub.add_argument("runs", nargs="+", metavar="RUN", help="a git revision, tag, experiment, `workspace`, or another project's folder")
    sub.add_argument("--model", action="append", help="whose answers to compare; repeatable (default: rl)")
    sub.add_argument("--metric", help="the metric (default: ndcg@5)")
    sub = commands.add("gc", gc, "remove from DVC's cache what no tag, branch, experiment, promotion or workspace needs")
    sub.add_argument("--dry", action="store_true", help="only say what would go, and what keeps the rest")
    sub.add_argument("--yes", action="store_true", help="do not ask")
    sub.add_argument("--remote", action="store_true", help="clean the default remote, too")
    sub = commands.add("promote", promote, "tag HEAD and its outputs as promoted/NAME; without NAME, list the promotions", json=True)
    sub.add_argument("name", nargs="?", metavar="NAME")
    sub.add_argument("--message", help="what the tag shall say")


def compare(options: argparse.Namespace, here: Path) -> int:
    from tasks.domain.compare_command import OUTPUTS, SLATES, compare_command
    from tasks.dvc.revisions import code_differences, file_of, parameter_differences, read_revision

    if len(options.runs) < 2 or len(set(options.runs)) < len(options.runs):
        raise ProjectError("compare: give two or more runs, each once")
    root = Path.cwd()
    runs = [read_revision(root, here, name) for name in options.runs]
    files = [file_of(run, OUTPUTS) for run in runs]
    slates = [file_of(run, SLATES, required=False) for run in runs]
    words = [*(f"--model={name}" for name in options.model or ()), *([f"--metric={options.metric}"] if options.metric else [])]
    command = compare_command([run.name for run in runs], files, slates, *words, as_json=options.json)
    params, code = parameter_differences(runs), code_differences(runs)
    if options.json:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode == 0:
            commits = {run.name: run.commit or None for run in runs}
            print(json.dumps(json.loads(done.stdout) | {"commits": commits, "params": params, "code": code}, indent=2))
        return done.returncode
    code_of = subprocess.run(command, check=False).returncode
    if code_of == 0:
        print("", *_differences(params, code), sep="\n")
    return code_of


def _differences(params: dict[str, list[Any]], code: list[str]) -> list[str]:
    lines = [f"{key}: {' | '.join(map(json.dumps, values))}" for key, values in params.items()]
    lines = (
        ["parameters that differ, in the order of the runs:", *(f"  {line}" for line in lines)]
        if lines
        else ["the parameters are the same"]
    )
    return [*lines, *([f"code that differs: {', '.join(code)}"] if code else [])]


def gc(options: argparse.Namespace, here: Path) -> int:
    from tasks.maintenance.gc import collect
    from tasks.system.activity_lock import alone

    root = Path.cwd()
    with alone(root, "gr2 gc"):
        surveys = collect(root, delete=False, remote=options.remote)
        from flows.render.gc import gc_view

        show(gc_view(surveys, LISTED))
        if options.dry or not any(survey.unneeded for survey in surveys):
            return 0
        if not options.yes and not _confirmed():
            print("nothing was removed")
            return 0
        collect(root, delete=True, remote=options.remote)
    print("removed")
    return 0


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise ProjectError("gc: say --yes to remove these, or --dry to look only (there is no terminal to ask at)")
    return input("Remove them for good? [y/N] ").strip().lower() in ("y", "yes")


def promote(options: argparse.Namespace, here: Path) -> int:
    from tasks.maintenance import promotions

    root = Path.cwd()
    if options.name:
        made = promotions.promote(root, options.name, options.message)
        print(
            json.dumps(made.to_dict(), indent=2)
            if options.json
            else f"promoted/{made.name} is {made.commit[:10]}; gr2 gc keeps what it needs"
        )
        return 0
    if options.message:
        raise ProjectError("promote: --message needs NAME")
    found = promotions.promotions(root)
    if options.json:
        print(json.dumps([own.to_dict() for own in found], indent=2))
        return 0
    for own in found:
        print(f"{own.name}  {own.commit[:10]}  {own.time[:19]}  {own.message}")
    if not found:
        print("no promotions; make one with: gr2 promote NAME")
    return 0


def run_queue(root: Path, options: argparse.Namespace) -> int:
    """`gr2 run --queue`: an experiment for each combination of --set; none set: those that wait in the queue."""
    from tasks.experiments import queue
    from tasks.system.activity_lock import working

    with _stop_noted() as stopped:
        if options.set:
            own = _queue(root, options, stopped)
        elif options.stages or options.until:
            raise ProjectError("--queue: stages go with --set; what is queued already has its own")
        elif not (own := queue.queued(root)):
            raise ProjectError("--queue: nothing is queued; give values with --set KEY=VALUE, or without --queue run the workspace")
        if options.no_start:
            print("start them with: gr2 run --queue (or dvc queue start)")
            return 0
        with working(root):
            return _carry_out(root, own, options.jobs or 1, stopped)


def _queue(root: Path, options: argparse.Namespace, stopped: Callable[[], bool]) -> list["Experiment"]:
    from tasks.experiments import queue
    from tasks.project import overrides
    from tasks.system.activity_lock import alone

    combinations = overrides.grid(overrides.read_settings(root, options.set))
    targets = [*options.stages, *options.until]
    read_graph(root).closure(targets)
    copied = queue.left_out(root)
    with alone(root, "queueing experiments"):  # DVC sets the edits in the workspace aside for a moment
        own = queue.queue(root, combinations, targets, copied, stopped)
    for experiment in own:
        print(f"{experiment.name} | queued")
    return own


def _carry_out(root: Path, own: list["Experiment"], jobs: int, stopped: Callable[[], bool]) -> int:
    from tasks.experiments.lineage import record_experiments
    from tasks.experiments.workers import Workers

    width = max(len(experiment.name) for experiment in own)
    graph = read_graph(root)
    try:
        Workers(root, own, lambda experiment, text: print(f"{experiment.name:<{width}} | {text}", flush=True)).run(jobs, stopped)
    finally:
        record_experiments(root, graph, own)
    done = [experiment.name for experiment in own if experiment.state == "Completed"]
    if rest := [experiment.name for experiment in own if experiment.state == "Stopped"]:
        print(f"gr2: stopped; taken out of the queue: {', '.join(rest)}", file=sys.stderr)
        return INTERRUPTED
    if done:
        print(f"compare them with: gr2 compare HEAD {' '.join(done)}; dvc exp show lists them all")
    return 0 if len(done) == len(own) else STAGE_FAILED


@contextmanager
def _stop_noted() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM are noted for whoever asks, and cut nothing off: DVC has the edits in the workspace set aside while it queues."""
    came: list[int] = []
    earlier = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)

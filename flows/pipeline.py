"""The pipeline as a Prefect flow: one task a stage, in the order of dvc.yaml, independent ones side by side.

DVC decides what is current; Prefect's own result cache is off. Prepare the environment (flows.environment) before importing this.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.console import RunConsole
from tasks.context import run_context
from tasks.cores import Cores
from tasks.errors import Interrupted, StageFailed
from tasks.events import StageRun
from tasks.graph import Graph, read_graph
from tasks.identity import order_like_dvc, read_lock
from tasks.plan import Plan, make_plan
from tasks.selection import select
from tasks.stage import Callbacks, Runner

# The environment of the stages; None = that of this process. The command line sets it to what it was before Prefect's settings went in.
stage_environment: dict[str, str] | None = None


SIDE_BY_SIDE: Any = ThreadPoolTaskRunner(max_workers=64)  # the cores say how many really are


@flow(name="pipeline", task_runner=SIDE_BY_SIDE, persist_result=False, validate_parameters=False)
def pipeline(stages: list[str] | None = None, start: str | None = None, force: list[str] | None = None) -> State[Any]:
    """Runs `stages` and what they need (None: all), from the stage `start` on, in the project at the current directory.

    Stages of `force` run even when they are current. Each stage ends Completed, Cached or Failed; those behind a failed one,
    NotReady. The flow fails with the failed stages' messages.
    """
    root = Path.cwd()
    graph = read_graph(root)
    names = select(root, graph, stages, start)
    before = list(read_lock(root))
    plan = make_plan(root, graph, names, force)
    with RunConsole(names) as console:
        run = PipelineRun(root, graph, plan, console, frozenset(force or ()))
        with _stopping(run.runner.stop):
            failures = _submit(run, names)
    order_like_dvc(root, before, stages)
    if run.runner.stopped:
        return Cancelled(message="stopped from outside")
    if failures:
        return Failed(message="\n".join(f"{name}: {message}" for name, message in failures.items()))
    return Completed(message=f"{len(names)} stages, {len(run.acted)} of them anew")


def _submit(run: "PipelineRun", names: list[str]) -> dict[str, str]:
    """Submits every stage behind its upstreams, waits for all; returns the messages of those that failed."""
    futures: dict[str, Any] = {}
    for name in names:
        work: Any = task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(run.stage)
        futures[name] = work.submit(name, wait_for=[futures[other] for other in run.graph.upstream(name) if other in futures])
    for future in futures.values():
        future.wait()
    failures = {}
    for name, future in futures.items():
        if not future.state.is_final():  # NotReady: a stage it needs failed
            run.console.finished(name, "Skipped")
        elif future.state.is_failed() or future.state.is_crashed():
            failures[name] = future.state.message or "failed"
            if run.console.rows[name].state != "Failed":  # not the stage but something around it
                run.console.finished(name, "Failed", note=failures[name])
    return failures


class PipelineRun:
    """One run: what its tasks share."""

    def __init__(self, root: Path, graph: Graph, plan: Plan, console: RunConsole, forced: frozenset[str] = frozenset()):
        self.root, self.graph, self.plan, self.console = root, graph, plan, console
        self.forced = forced
        self.acted: set[str] = set()  # stages that DVC ran or restored: those behind them are asked again
        self.cores = Cores()
        self.context = run_context(root, str(flow_run.id or ""))
        self.records: dict[str, StageRun] = {}
        self.runner = Runner(root, Callbacks(console.line, console.progress, self._started), stage_environment)

    def stage(self, name: str) -> State[Any]:
        """The body of the Prefect task `name`."""
        stage = self.graph[name]
        if self.plan[name].current and not self.acted.intersection(self.graph.upstream(name)):
            self.console.finished(name, "Cached")
            return Completed(name="Cached", message="DVC finds it current")
        began = time.monotonic()
        try:
            with self.cores.taken(stage.cpus, lambda: self.runner.stopped):
                began = time.monotonic()
                finished = self.runner.run(stage, force=name in self.forced)
        except StageFailed as error:
            return self._failed(name, error, time.monotonic() - began)
        if not finished.ran:
            if finished.restored:
                self.acted.add(name)
            note = "restored from DVC's cache" if finished.restored else ""
            self.console.finished(name, "Cached", note=note)
            return Completed(name="Cached", message=note or "DVC finds it current")
        self.acted.add(name)
        self.records[name].complete()
        self.console.finished(name, "Completed", finished.seconds)
        return Completed(message=f"ran for {finished.seconds:.1f} s")

    def _started(self, name: str) -> None:
        self.records[name] = StageRun(self.root, self.graph[name], self.context)
        self.records[name].start()
        self.console.started(name)

    def _failed(self, name: str, error: StageFailed, seconds: float) -> State[Any]:
        if name in self.records:
            self.records[name].fail(str(error))
        if isinstance(error, Interrupted):
            self.console.finished(name, "Skipped" if name not in self.records else "Failed", seconds, str(error))
            return Cancelled(message=str(error))
        self.console.finished(name, "Failed", seconds, str(error))
        return Failed(message=str(error))


@contextmanager
def _stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the stages at work; their tasks then end by themselves, so Prefect hears of it and no slot stays taken.

    A second one ends this process on the spot.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    calls = count()

    def handler(number: int, frame: Any) -> None:
        if next(calls):
            os._exit(128 + number)
        stop()

    earlier = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, old in zip(numbers, earlier, strict=True):
            signal.signal(number, old)

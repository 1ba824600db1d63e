"""One run of the pipeline: what its tasks share, and the three steps of a stage in it: decide, execute, report."""

import threading
import time
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from flows.nodes.remote_executor import RemoteExecutor
from flows.pipeline.console import RunConsole
from flows.pipeline.log_tail import last_lines
from flows.pipeline.outcome import Action, Broken, Current, Outcome, Ran, Restore, Restored, RunHere, RunOnNode, Skip, Stopped
from tasks.dvc import remote
from tasks.dvc.log_parser import Callbacks
from tasks.dvc.remote import RemoteUnavailable
from tasks.dvc.repo import default_remote
from tasks.ledger.events import StageRun
from tasks.ledger.run_context import RunContext
from tasks.nodes.placement import Placement, Pool
from tasks.nodes.slots import acquire_gpus
from tasks.project.graph import Graph, Stage
from tasks.run import interrupted
from tasks.run.plan import Plan
from tasks.run.stage import Finished, Runner
from tasks.system.errors import Interrupted, ProjectError, StageFailed
from tasks.system.resource_pool import ResourcePool


class PipelineRun:
    """`stage` is the body of every Prefect task. `stop` may be called by a signal handler at any time."""

    def __init__(
        self,
        root: Path,
        graph: Graph,
        plan: Plan,
        console: RunConsole,
        context: RunContext,
        placement: Placement,
        forced: frozenset[str] = frozenset(),
        env: dict[str, str] | None = None,
    ):
        self.root, self.graph, self.plan, self.console, self.context = root, graph, plan, console, context
        self.placement, self.forced = placement, forced
        self.acted: set[str] = set()  # stages that DVC ran or restored: whether those behind them are current is decided anew
        self.cores = ResourcePool()
        self.records: dict[str, StageRun] = {}
        self.callbacks = Callbacks(console.note, console.progress, self._started, begins=partial(interrupted.journal_start, root))
        self.runner = Runner(root, self.callbacks, env)
        self.nodes = self._executor() if placement.pools else None
        self._asking = threading.Lock()  # one stage at a time asks the remote, so that a failure is reported once

    @property
    def stopped(self) -> bool:
        return self.runner.stopped

    def stop(self) -> None:
        if self.nodes:
            self.nodes.halted.set()
        self.runner.stop()

    def close(self) -> None:
        if self.nodes:
            self.nodes.close()

    def stage(self, name: str) -> State[None]:
        """The body of the Prefect task of the stage `name`."""
        began = time.monotonic()
        outcome: Outcome
        try:
            outcome = self.execute(self.decide(self.graph[name]))
        except Interrupted as error:
            outcome = Stopped(str(error), time.monotonic() - began)
        except StageFailed as error:
            outcome = Broken(str(error), time.monotonic() - began, error.log)
        except ProjectError as error:
            outcome = Broken(str(error), time.monotonic() - began)
        return self.report(name, outcome)

    def decide(self, stage: Stage) -> Action:
        """What has to be done: nothing, or its outputs come from DVC's cache or remote, or it runs on a node or here."""
        if self.plan[stage.name].current and not self.acted.intersection(self.graph.upstream(stage.name)):
            return Skip(stage)
        force = stage.name in self.forced
        if not force and (source := self._restorable(stage)):
            return Restore(stage, source)
        pool = self.placement.pool(stage)
        return RunOnNode(stage, pool, force) if pool else RunHere(stage, force)

    def execute(self, action: Action) -> Outcome:
        """Carries it out. StageFailed, Interrupted or ProjectError when that fails."""
        outcome: Outcome
        match action:
            case Skip():
                return Current()
            case Restore(stage, source):
                finished = self.runner.run(stage, checked=True)
                outcome = _ran_locally(finished) if finished.ran else Restored(source)
            case RunHere(stage, force):
                outcome = self._run_here(stage, force)
            case RunOnNode(stage, pool, force):
                outcome = self._run_on_node(stage, pool, force)
        if not isinstance(outcome, Current):
            self.acted.add(action.stage.name)
        if self.nodes and isinstance(outcome, Ran) and outcome.node is None:
            try:
                self.nodes.push(action.stage)  # nodes get their inputs from the remote
            except ProjectError as error:
                return replace(outcome, not_sent=str(error))
        return outcome

    def report(self, name: str, outcome: Outcome) -> State[None]:
        """The one place that tells the console, the lineage record and Prefect how the stage ended."""
        event = self.records.get(name)  # of a command that was started
        match outcome:
            case Current():
                self.console.finished(name, "Cached")
                return Completed(name="Cached", message="DVC finds it current")
            case Restored(source):
                StageRun(self.root, self.graph[name], self.context).restored(source)
                interrupted.journal_end(self.root, name)
                note = f"restored from DVC's {source}"
                self.console.finished(name, "Cached", note=note)
                return Completed(name="Cached", message=note)
            case Ran(seconds, node, not_sent, peak_memory_mb):
                if event:
                    event.complete(node.model_dump() if node else None, peak_memory_mb)
                    interrupted.journal_end(self.root, name)
                if not_sent:
                    return self.report(name, Broken(not_sent, seconds))
                host_note = f"on {node.host}" if node else ""
                self.console.finished(name, "Completed", seconds, host_note, peak_memory_mb)
                return Completed(message=" ".join(filter(None, [f"ran for {seconds:.1f} s", host_note])))
            case Stopped(message, seconds):
                if event:
                    event.abort(message)
                self.console.finished(name, "Failed" if event else "Skipped", seconds, message)
                return Cancelled(message=message)
            case Broken(message, seconds, log):
                if event:
                    event.fail(message)
                self.console.finished(name, "Failed", seconds, message)
                if log:
                    self.console.log_tail(name, log, last_lines(self.root / log, message))
                return Failed(message=message)

    def _run_here(self, stage: Stage, force: bool) -> Outcome:
        """Waits for free cores, memory and GPUs; DVC then runs the stage, restores it or finds it current."""
        free_cores = self.cores.acquire(stage.cpus, lambda: self.stopped, stage.memory_gb)
        with free_cores, acquire_gpus(stage.gpus, lambda: self.stopped) as gpu_env:
            finished = self.runner.run(stage, force, gpu_env)
        if finished.ran:
            return _ran_locally(finished)
        return Restored("cache") if finished.restored else Current()

    def _run_on_node(self, stage: Stage, pool: Pool, force: bool) -> Outcome:
        """A node runs it and its outputs reach the local cache; DVC then restores them and writes dvc.lock, which nothing else does."""
        assert self.nodes
        heartbeat = self.nodes.run(stage, pool, force)
        finished = self.runner.run(stage, checked=True)
        if finished.ran:
            raise StageFailed(stage.name, "DVC ran it here again although a node had: its deps have changed meanwhile")
        result = heartbeat.result
        if (result and not result.ran) or stage.name not in self.records:
            return Restored("remote")
        return Ran(result.seconds, heartbeat.node, peak_memory_mb=result.peak_memory_mb) if result else Ran(0.0, heartbeat.node)

    def _restorable(self, stage: Stage) -> str:
        """Where the outputs of this very run of `stage` are already, the DVC remote included; empty when it has to run."""
        with self._asking:
            if not self._remote:
                return ""
            try:
                return remote.fetch(self.root, stage)
            except RemoteUnavailable as error:
                if self.nodes:
                    raise
                self._remote = ""  # asked once; a laptop off the network still works
                self.console.note(stage.name, f"{error}; going on without it")
                return ""

    @cached_property
    def _remote(self) -> str:
        return default_remote(self.root)

    def _executor(self) -> RemoteExecutor:
        return RemoteExecutor(self.root, self.graph, self.placement, self.context.flow_run, self.callbacks)

    def _started(self, name: str) -> None:
        self.records[name] = StageRun(self.root, self.graph[name], self.context)
        self.records[name].start()
        self.console.started(name)


def _ran_locally(finished: Finished) -> Ran:
    return Ran(finished.seconds, peak_memory_mb=finished.peak_memory_mb)

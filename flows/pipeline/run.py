"""One run of the pipeline: what its tasks share, and what becomes of one stage in it."""

import threading
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from flows.pipeline.console import RunConsole
from tasks.dvc import remote
from tasks.dvc.remote import RemoteUnavailable
from tasks.dvc.repo import default_remote
from tasks.ledger.events import StageRun
from tasks.ledger.run_context import RunContext
from tasks.nodes.placement import Placement
from tasks.nodes.slots import acquire_gpus
from tasks.project.graph import Graph, Stage
from tasks.run.plan import Plan
from tasks.run.stage import Callbacks, Finished, Runner
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
        self.acted: set[str] = set()  # stages that DVC ran or restored: those behind them are asked again
        self.cores = ResourcePool()
        self.records: dict[str, StageRun] = {}
        self.callbacks = Callbacks(console.line, console.progress, self._started)
        self.runner = Runner(root, self.callbacks, env)
        self.nodes = self._nodes() if placement.pools else None
        self._asking = threading.Lock()

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

    def stage(self, name: str) -> State[Any]:
        """Runs the stage `name` unless it is current: restored from DVC's cache or remote, else on a node, else here."""
        stage = self.graph[name]
        if self.plan[name].current and not self.acted.intersection(self.graph.upstream(name)):
            self.console.finished(name, "Cached")
            return Completed(name="Cached", message="DVC finds it current")
        began = time.monotonic()
        try:
            pool = self.placement.pool(stage)
            source = "" if name in self.forced else self._restorable(stage)
            if pool and self.nodes and not source:
                return self._on_node(stage, self.nodes.run(stage, pool, name in self.forced))
            return self._here(stage, source)
        except (StageFailed, ProjectError) as error:
            return self._failed(name, error, time.monotonic() - began)

    def _here(self, stage: Stage, source: str) -> State[Any]:
        """`source`: where its outputs are known to be, so that nothing will run; empty: it runs if DVC says so."""
        needs = (0, 0, 0.0) if source else (stage.cpus, stage.gpus, stage.memory_gb)
        cpus, gpus, memory_gb = needs
        with self.cores.acquire(cpus, lambda: self.stopped, memory_gb), acquire_gpus(gpus, lambda: self.stopped) as shown:
            finished = self.runner.run(stage, stage.name in self.forced, shown, checked=bool(source))
        if finished.ran:
            self.acted.add(stage.name)
            self.records[stage.name].complete()
            if self.nodes:
                self.nodes.push(stage)
            self.console.finished(stage.name, "Completed", finished.seconds)
            return Completed(message=f"ran for {finished.seconds:.1f} s")
        return self._cached(stage, finished, source)

    def _cached(self, stage: Stage, finished: Finished, source: str) -> State[Any]:
        if not (finished.restored or source):
            self.console.finished(stage.name, "Cached")
            return Completed(name="Cached", message="DVC finds it current")
        self.acted.add(stage.name)
        StageRun(self.root, stage, self.context).restored(source or "cache")
        note = f"restored from DVC's {source or 'cache'}"
        self.console.finished(stage.name, "Cached", note=note)
        return Completed(name="Cached", message=note)

    def _on_node(self, stage: Stage, beat: Any) -> State[Any]:
        """A node has run it, and its outputs are in the cache here; DVC restores them and writes dvc.lock, the one place that does."""
        finished = self.runner.run(stage, checked=True)
        if finished.ran:
            raise StageFailed(stage.name, "DVC ran it here again although a node had: its deps have changed meanwhile")
        self.acted.add(stage.name)
        host, seconds = beat.facts.get("host", "a node"), beat.outcome.get("seconds", 0.0)
        if not beat.outcome.get("ran", True) or stage.name not in self.records:
            return self._cached(stage, finished, "remote")
        self.records[stage.name].complete(beat.facts)
        self.console.finished(stage.name, "Completed", seconds, f"on {host}")
        return Completed(message=f"ran for {seconds:.1f} s on {host}")

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
                self.console.line(stage.name, f"{error}; going on without it")
                return ""

    @cached_property
    def _remote(self) -> str:
        return default_remote(self.root)

    def _nodes(self) -> Any:
        from flows.nodes.remote_executor import Nodes

        return Nodes(self.root, self.graph, self.placement, self.context.flow_run, self.callbacks)

    def _started(self, name: str) -> None:
        self.records[name] = StageRun(self.root, self.graph[name], self.context)
        self.records[name].start()
        self.console.started(name)

    def _failed(self, name: str, error: Exception, seconds: float) -> State[Any]:
        if name in self.records:
            record = self.records[name]
            (record.abort if isinstance(error, Interrupted) else record.fail)(str(error))
        if isinstance(error, Interrupted):
            self.console.finished(name, "Skipped" if name not in self.records else "Failed", seconds, str(error))
            return Cancelled(message=str(error))
        self.console.finished(name, "Failed", seconds, str(error))
        return Failed(message=str(error))

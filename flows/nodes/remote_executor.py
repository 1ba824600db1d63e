"""Stages on nodes, as the orchestrator sees it: hands a request to a work pool, listens, tries again when a node is lost."""

import threading
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from flows.nodes.heartbeat import read_heartbeat
from flows.nodes.messages import Heartbeat, StageRequest
from flows.nodes.pools import FLOW, ensure, limit_of
from flows.nodes.stage_flow import TRANSIENT
from flows.server.connection import connected
from tasks.dvc import remote
from tasks.dvc.remote import RemoteUnavailable
from tasks.nodes import snapshot
from tasks.nodes.placement import Placement, Pool
from tasks.project.graph import Graph, Stage
from tasks.run.retries import TransientError
from tasks.run.stage import Callbacks
from tasks.system.errors import Interrupted, StageFailed

POLL_S = 1.0
WAITING_REPORT_S = 60.0
FOLLOWERS_END_S = 30.0  # for the other nodes of a stage, once node 0 has pushed


@dataclass
class RemoteRun:
    """One flow run on one node, and what was last heard of it."""

    id: Any
    rank: int
    waiting_reported: float = field(default_factory=time.monotonic)  # when it was last told that it waits
    last_heard: float = field(default_factory=time.monotonic)
    heartbeat: Heartbeat | None = None
    state: Any = None


class RemoteExecutor:
    """Runs stages of one pipeline run on nodes. Safe to share between threads."""

    def __init__(self, root: Path, graph: Graph, placement: Placement, run: str, callbacks: Callbacks):
        placement.check(graph)
        ensure(root, placement)
        self.root, self.graph, self.placement, self.run_name, self.callbacks = root, graph, placement, run, callbacks
        self.halted = threading.Event()
        self._pushed: set[str] = set()
        self._git = threading.Lock()

    def close(self) -> None:
        snapshot.drop(self.root, self.run_name, self.placement.git_remote)

    def run(self, stage: Stage, pool: Pool, force: bool = False) -> Heartbeat:
        """Has a node run `stage` and push what it made, and brings that into the cache here; returns the node's last word.

        StageFailed when the stage itself fails or every try was lost; Interrupted once `halted` is set.
        """
        self._push_inputs(stage)
        key = remote.run_key(self.root, stage)
        retries = self.placement.retries
        for number in count(1):
            try:
                heartbeat = self._once(stage, pool, key, force)
                if remote.fetch(self.root, stage):
                    return heartbeat
                # An upload that was cut short is cleared away by now; a node that has the outputs only sends them again.
                raise TransientError("the DVC remote does not give back what its node has pushed")
            except (TransientError, RemoteUnavailable) as error:
                if number > retries.limit:
                    raise StageFailed(stage.name, f"{error} (given up after {number} tries)") from None
                wait_s = retries.wait_s(number)
                self.callbacks.line(stage.name, f"{error}; trying again in {wait_s:.0f} s ({number} of {retries.limit})")
                if self.halted.wait(wait_s):
                    raise Interrupted(stage.name, "stopped while it waited for another try") from None
        raise AssertionError

    def push(self, stage: Stage) -> None:
        """Sends what `stage` made here, for nodes and for other checkouts."""
        remote.push(self.root, stage)
        self._pushed.add(stage.name)

    def _push_inputs(self, stage: Stage) -> None:
        for name in self.graph.upstream(stage.name):
            if name not in self._pushed:
                self.push(self.graph[name])

    def _once(self, stage: Stage, pool: Pool, key: str, force: bool) -> Heartbeat:
        with connected("nodes") as client:
            runs = [self._reattach(client, stage, key) or self._submit(client, stage, pool, key, force, 0, "")]
            ended = 0.0
            try:
                while True:
                    if self.halted.is_set():
                        raise Interrupted(stage.name, "stopped; its node was told to end it")
                    for run in runs:
                        self._poll(client, stage, pool, run)
                    address = runs[0].heartbeat.address if runs[0].heartbeat else ""
                    if len(runs) < stage.nodes and address:
                        runs += [self._submit(client, stage, pool, key, force, rank, address) for rank in range(1, stage.nodes)]
                    if runs[0].state and runs[0].state.is_completed():
                        ended = ended or time.monotonic()
                        if all(run.state.is_final() for run in runs) or time.monotonic() - ended > FOLLOWERS_END_S:
                            return runs[0].heartbeat or Heartbeat()
                    time.sleep(POLL_S)
            finally:
                for run in runs:
                    _cancel(client, run)

    def _reattach(self, client: Any, stage: Stage, key: str) -> RemoteRun | None:
        """A flow run that is at this very run already, for an orchestrator that was killed or beside this one: nothing runs twice."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
        from prefect.client.schemas.objects import StateType

        if stage.nodes > 1:
            return None  # its ranks belong together
        alive = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]))
        flow_runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[_tag(key)]), state=alive))
        if flow_runs:
            self.callbacks.line(stage.name, "a node is at it already; waiting for it")
        return RemoteRun(flow_runs[0].id, 0) if flow_runs else None

    def _submit(self, client: Any, stage: Stage, pool: Pool, key: str, force: bool, rank: int, address: str) -> RemoteRun:
        from prefect.deployments import run_deployment

        with self._git:
            ref, commit = snapshot.push_code_snapshot(self.root, self.run_name, stage.name, self.placement.git_remote)
        request = StageRequest(
            ref=ref,
            commit=commit,
            key=key,
            force=force,
            gpus=stage.gpus,
            limit=limit_of(pool),
            pool=pool.name,
            lease_s=self.placement.lease_s,
            nodes=stage.nodes,
            rank=rank,
            address=address,
        )
        needs = {"cpus": stage.cpus, "memory": f"{max(1, round(stage.memory_gb))}Gi", **({"gpus": stage.gpus} if stage.gpus else {})}
        where = f" (node {rank} of {stage.nodes})" if stage.nodes > 1 else ""
        flow_run: Any = run_deployment(
            f"{FLOW}/{pool.name}",
            parameters={"stage": stage.name, "request": request.model_dump()},
            flow_run_name=f"{stage.name}{where}",
            timeout=0,
            tags=[f"gr2-run:{self.run_name}", *([_tag(key)] if rank == 0 else [])],
            job_variables=needs if pool.type == "kubernetes" else {},
        )
        self.callbacks.line(stage.name, f"placed on pool '{pool.name}'{where}")
        return RemoteRun(flow_run.id, rank)

    def _poll(self, client: Any, stage: Stage, pool: Pool, run: RemoteRun) -> None:
        """Looks once. TransientError for a node that is lost, StageFailed for a stage that failed."""
        run.state = client.read_flow_run(run.id).state
        if run.state.is_final():
            run.heartbeat = read_heartbeat(client, run.id)
            return _raise_failure(stage, run)
        now = time.monotonic()
        if run.state.is_running():
            heartbeat = read_heartbeat(client, run.id)
            if heartbeat and (run.heartbeat is None or heartbeat.count != run.heartbeat.count):
                if run.heartbeat is None and run.rank == 0:
                    self.callbacks.started(stage.name)
                if heartbeat.line and (run.heartbeat is None or heartbeat.line != run.heartbeat.line):
                    self.callbacks.progress(stage.name, f"{heartbeat.node.host}: {heartbeat.line}")
                run.heartbeat, run.last_heard = heartbeat, now
            if run.heartbeat and now - run.last_heard > self.placement.lease_s:
                _crash(client, run, f"not heard of for {self.placement.lease_s:.0f} s")
                raise TransientError(f"its node{_host(run)} is lost: not heard of for {self.placement.lease_s:.0f} s")
        if run.heartbeat is None and not run.state.is_scheduled() and now - run.last_heard > self.placement.pending_s:
            _crash(client, run, "taken by a worker, never begun")
            raise TransientError(f"a worker of pool '{pool.name}' took it and did not begin for {self.placement.pending_s:.0f} s")
        if run.state.is_scheduled():
            run.last_heard = now
            if now - run.waiting_reported > WAITING_REPORT_S:
                run.waiting_reported = now
                self.callbacks.line(
                    stage.name, f"waiting for a worker of pool '{pool.name}' (gr2 worker {pool.name} --placement {self.placement.name})"
                )
        return None


def _raise_failure(stage: Stage, run: RemoteRun) -> None:
    state = run.state
    if state.is_completed():
        return
    message = state.message or state.name
    if state.is_crashed() or state.name == TRANSIENT:
        raise TransientError(f"its node{_host(run)} failed it: {message}")
    if state.is_cancelled():
        raise StageFailed(stage.name, f"cancelled from outside: {message}")
    raise StageFailed(stage.name, message)


def _host(run: RemoteRun) -> str:
    return f" {run.heartbeat.node.host}" if run.heartbeat else ""


def _cancel(client: Any, run: RemoteRun) -> None:
    """Ends what is still at work: the other nodes of a stage that failed on one, or all of them after Ctrl-C."""
    from prefect.states import Cancelling

    if run.state is None or not run.state.is_final():
        try:
            if not client.read_flow_run(run.id).state.is_final():
                client.set_flow_run_state(run.id, Cancelling())
        except Exception:  # a server that is gone cannot be told; the node's lease or its own end will do
            return


def _crash(client: Any, run: RemoteRun, why: str) -> None:
    """Says on the server that the run is lost, so that its slots are free. A node that was only cut off learns it from its lease."""
    from prefect.states import Crashed

    client.set_flow_run_state(run.id, Crashed(message=why), force=True)
    run.state = client.read_flow_run(run.id).state


def _tag(key: str) -> str:
    return f"gr2-key:{key}"

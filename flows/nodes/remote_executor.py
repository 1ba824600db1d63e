"""Stages on nodes, seen from the orchestrator: submits a request to a work pool, follows its heartbeats, retries when a node is lost."""

import threading
import time
from itertools import count
from pathlib import Path
from typing import cast

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment

from flows.nodes.code_sender import CodeSender
from flows.nodes.heartbeat import read_heartbeat
from flows.nodes.messages import Heartbeat, StageRequest
from flows.nodes.pools import FLOW, ensure, limit_of
from flows.nodes.remote_run import RemoteRun, cancel, crash, host_of, raise_failure
from flows.server.connection import connected
from tasks.dvc import remote
from tasks.dvc.log_parser import Callbacks
from tasks.dvc.remote import RemoteUnavailable
from tasks.nodes.placement import Placement, Pool
from tasks.project.graph import Graph, Stage
from tasks.run.retries import TransientError
from tasks.system.errors import Interrupted, StageFailed
from tasks.system.progress import StageProgress

POLL_S = 1.0
WAITING_REPORT_S = 60.0
FOLLOWERS_END_S = 30.0  # how long the other ranks of a stage may take to end, once rank 0 has pushed the outputs


class RemoteExecutor:
    """Runs stages of one pipeline run on nodes. Safe to share between threads."""

    def __init__(self, root: Path, graph: Graph, placement: Placement, run: str, callbacks: Callbacks):
        placement.check(graph)
        ensure(root, placement)
        self.root, self.graph, self.placement, self.run_name, self.callbacks = root, graph, placement, run, callbacks
        self.halted = threading.Event()
        self._pushed: set[str] = set()
        self._code = CodeSender(root, graph, run, placement.git_remote, callbacks.note)

    def close(self) -> None:
        self._code.drop()

    def run(self, stage: Stage, pool: Pool, force: bool = False) -> Heartbeat:
        """Runs `stage` on a node of `pool`, which pushes its outputs, and fetches them into the local cache; returns the last heartbeat.

        StageFailed when the stage itself fails or every attempt was lost; Interrupted once `halted` is set.
        """
        self._push_inputs(stage)
        key = remote.run_key(self.root, stage)
        retries = self.placement.retries
        for attempt in count(1):
            try:
                heartbeat = self._attempt(stage, pool, key, force)
                if remote.fetch(self.root, stage):
                    return heartbeat
                # `fetch` has removed an upload that was cut short, so a node that still has the outputs only pushes them again.
                raise TransientError("the DVC remote does not give back what its node has pushed")
            except (TransientError, RemoteUnavailable) as error:
                if attempt > retries.limit:
                    raise StageFailed(stage.name, f"{error} (given up after {attempt} tries)") from None
                wait_s = retries.wait_s(attempt)
                self.callbacks.note(stage.name, f"{error}; trying again in {wait_s:.0f} s ({attempt} of {retries.limit})")
                if self.halted.wait(wait_s):
                    raise Interrupted(stage.name, "stopped while it waited for another try") from None
        raise AssertionError("the loop above ends by return or raise")

    def push(self, stage: Stage) -> None:
        """Pushes the outputs of `stage` from the local cache to the DVC remote, for nodes and for other checkouts."""
        remote.push(self.root, stage)
        self._pushed.add(stage.name)

    def _push_inputs(self, stage: Stage) -> None:
        for name in self.graph.upstream(stage.name):
            if name not in self._pushed:
                self.push(self.graph[name])

    def _attempt(self, stage: Stage, pool: Pool, key: str, force: bool) -> Heartbeat:
        """Submits the ranks of `stage` and polls them until rank 0 has completed; cancels those still at work when it leaves."""
        with connected("nodes") as client:
            runs = [self._reattach(client, stage, key) or self._submit(stage, pool, key, force)]
            completed_at = 0.0  # when rank 0 had completed; 0 = not yet
            try:
                while True:
                    if self.halted.is_set():
                        raise Interrupted(stage.name, "stopped; its node was told to end it")  # by `finally` below
                    for run in runs:
                        self._poll(client, stage, pool, run)
                    # The further ranks need the address of rank 0, which only its node knows.
                    address = runs[0].heartbeat.address if runs[0].heartbeat else ""
                    if len(runs) < stage.nodes and address:
                        runs += [self._submit(stage, pool, key, force, rank, address) for rank in range(1, stage.nodes)]
                    if runs[0].completed:
                        completed_at = completed_at or time.monotonic()
                        if all(run.over for run in runs) or time.monotonic() - completed_at > FOLLOWERS_END_S:
                            return runs[0].heartbeat or Heartbeat()
                    time.sleep(POLL_S)
            finally:
                for run in runs:
                    cancel(client, run)

    def _reattach(self, client: SyncPrefectClient, stage: Stage, key: str) -> RemoteRun | None:
        """A live flow run with the same `key`, started by an orchestrator that was killed or runs in parallel: nothing runs twice."""
        if stage.nodes > 1:
            return None  # rank 0 alone carries the tag, and the other ranks of a run that is half over cannot be taken up
        alive = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]))
        flow_runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[_tag(key)]), state=alive))
        if flow_runs:
            self.callbacks.note(stage.name, "a node runs it already; waiting for it")
        return RemoteRun(flow_runs[0].id, 0) if flow_runs else None

    def _submit(self, stage: Stage, pool: Pool, key: str, force: bool, rank: int = 0, address: str = "") -> RemoteRun:
        """Submits one rank of `stage` to `pool`. `address`: that of rank 0, for the other ranks."""
        code = self._code.send(stage)
        request = StageRequest(
            ref=code.ref,
            commit=code.commit,
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
        # What a pod asks Kubernetes for; the worker of a process pool has the machine it runs on.
        resources = {"cpus": stage.cpus, "memory": f"{max(1, round(stage.memory_gb))}Gi", **({"gpus": stage.gpus} if stage.gpus else {})}
        rank_note = f" (node {rank} of {stage.nodes})" if stage.nodes > 1 else ""
        # run_deployment is sync and async in one, so its declared type is a union; here, outside an event loop, it is a FlowRun.
        flow_run = cast(
            FlowRun,
            run_deployment(
                f"{FLOW}/{pool.name}",
                parameters={"stage": stage.name, "request": request.model_dump()},
                flow_run_name=f"{stage.name}{rank_note}",
                timeout=0,  # returns at once: `_poll` follows the run
                tags=[f"gr2-run:{self.run_name}", *([_tag(key)] if rank == 0 else [])],
                job_variables=resources if pool.type == "kubernetes" else {},
            ),
        )
        self.callbacks.note(stage.name, f"placed on pool '{pool.name}'{rank_note}")
        return RemoteRun(flow_run.id, rank)

    def _poll(self, client: SyncPrefectClient, stage: Stage, pool: Pool, run: RemoteRun) -> None:
        """Reads state and heartbeat once. TransientError for a node that is lost, StageFailed for a stage that failed."""
        run.state = client.read_flow_run(run.id).state
        assert run.state is not None  # a run that a deployment created has one from the start
        if run.state.is_final():
            run.heartbeat = read_heartbeat(client, run.id)
            raise_failure(stage, run, run.state)
        elif run.state.is_scheduled():
            self._report_waiting(stage, pool, run)
        else:
            if run.state.is_running():
                self._follow_heartbeat(client, stage, run)
            self._check_lost(client, pool, run, run.state)

    def _report_waiting(self, stage: Stage, pool: Pool, run: RemoteRun) -> None:
        """No worker has taken the run yet, which may last for hours: says so now and then."""
        now = time.monotonic()
        run.last_sign = now  # the time until it has to begin counts from when a worker takes it
        if now - run.waiting_reported > WAITING_REPORT_S:
            run.waiting_reported = now
            start = f"gr2 worker {pool.name} --placement {self.placement.name}"
            self.callbacks.note(stage.name, f"waiting for a worker of pool '{pool.name}' ({start})")

    def _follow_heartbeat(self, client: SyncPrefectClient, stage: Stage, run: RemoteRun) -> None:
        """Passes news on to the callbacks. Only a changed count is news: the server keeps the last heartbeat of a dead node."""
        heartbeat, previous = read_heartbeat(client, run.id), run.heartbeat
        if heartbeat is None or (previous and heartbeat.count == previous.count):
            return
        if previous is None and run.rank == 0:
            self.callbacks.started(stage.name)
        host = heartbeat.node.host
        if heartbeat.line and (previous is None or heartbeat.line != previous.line):
            self.callbacks.note(stage.name, f"{host}: {heartbeat.line}")
        if (progress := heartbeat.progress) and run.rank == 0:
            self.callbacks.progress(stage.name, StageProgress(progress.done, progress.total, f"{progress.part} on {host}".strip()))
        run.heartbeat, run.last_sign = heartbeat, time.monotonic()

    def _check_lost(self, client: SyncPrefectClient, pool: Pool, run: RemoteRun, state: State[None]) -> None:
        """TransientError for a node that was silent for too long: since its last heartbeat, or since its worker took the run."""
        silence_s = time.monotonic() - run.last_sign
        # A node that is cancelled ends by itself: while it does, its heartbeats are not followed and its silence means nothing.
        if run.heartbeat and state.is_running() and silence_s > self.placement.lease_s:
            crash(client, run, f"not heard of for {self.placement.lease_s:.0f} s")
            raise TransientError(f"its node{host_of(run)} is lost: not heard of for {self.placement.lease_s:.0f} s")
        if run.heartbeat is None and silence_s > self.placement.pending_s:
            crash(client, run, "taken by a worker, never begun")
            raise TransientError(f"a worker of pool '{pool.name}' took it and did not begin for {self.placement.pending_s:.0f} s")


def _tag(key: str) -> str:
    return f"gr2-key:{key}"

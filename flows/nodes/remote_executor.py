"""Stages on nodes, as the orchestrator sees it: hands an order to a work pool, listens, tries again when a node is lost."""

import threading
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from flows.nodes.heartbeat import Beat, read_beat
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
WAITING_SAID_S = 60.0
LEAVE_S = 30.0  # for the other nodes of a stage, once node 0 has pushed


@dataclass
class Order:
    """One flow run on one node, and what was last heard of it."""

    id: Any
    rank: int
    said: float = field(default_factory=time.monotonic)  # when it was last told that it waits
    heard: float = field(default_factory=time.monotonic)
    beat: Beat | None = None
    state: Any = None


class Nodes:
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

    def run(self, stage: Stage, pool: Pool, force: bool = False) -> Beat:
        """Has a node run `stage` and push what it made, and brings that into the cache here; returns the node's last word.

        StageFailed when the stage itself fails or every try was lost; Interrupted once `halted` is set.
        """
        self._push_inputs(stage)
        key = remote.run_key(self.root, stage)
        retries = self.placement.retries
        for number in count(1):
            try:
                beat = self._once(stage, pool, key, force)
                if remote.fetch(self.root, stage):
                    return beat
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

    def _once(self, stage: Stage, pool: Pool, key: str, force: bool) -> Beat:
        with connected("nodes") as client:
            orders = [self._adopted(client, stage, key) or self._submit(client, stage, pool, key, force, 0, "")]
            ended = 0.0
            try:
                while True:
                    if self.halted.is_set():
                        raise Interrupted(stage.name, "stopped; its node was told to end it")
                    for order in orders:
                        self._listen(client, stage, pool, order)
                    address = orders[0].beat.address if orders[0].beat else ""
                    if len(orders) < stage.nodes and address:
                        orders += [self._submit(client, stage, pool, key, force, rank, address) for rank in range(1, stage.nodes)]
                    if orders[0].state and orders[0].state.is_completed():
                        ended = ended or time.monotonic()
                        if all(order.state.is_final() for order in orders) or time.monotonic() - ended > LEAVE_S:
                            return orders[0].beat or Beat()
                    time.sleep(POLL_S)
            finally:
                for order in orders:
                    _cancel(client, order)

    def _adopted(self, client: Any, stage: Stage, key: str) -> Order | None:
        """A flow run that is at this very run already, for an orchestrator that was killed or beside this one: nothing runs twice."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
        from prefect.client.schemas.objects import StateType

        if stage.nodes > 1:
            return None  # its ranks belong together
        alive = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]))
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[_tag(key)]), state=alive))
        if found:
            self.callbacks.line(stage.name, "a node is at it already; waiting for it")
        return Order(found[0].id, 0) if found else None

    def _submit(self, client: Any, stage: Stage, pool: Pool, key: str, force: bool, rank: int, address: str) -> Order:
        from prefect.deployments import run_deployment

        with self._git:
            ref, commit = snapshot.push_code_snapshot(self.root, self.run_name, stage.name, self.placement.git_remote)
        order = {
            "ref": ref,
            "commit": commit,
            "key": key,
            "force": force,
            "gpus": stage.gpus,
            "limit": limit_of(pool),
            "pool": pool.name,
            "lease_s": self.placement.lease_s,
            "nodes": stage.nodes,
            "rank": rank,
            "address": address,
        }
        needs = {"cpus": stage.cpus, "memory": f"{max(1, round(stage.memory_gb))}Gi", **({"gpus": stage.gpus} if stage.gpus else {})}
        where = f" (node {rank} of {stage.nodes})" if stage.nodes > 1 else ""
        made: Any = run_deployment(
            f"{FLOW}/{pool.name}",
            parameters={"stage": stage.name, "order": order},
            flow_run_name=f"{stage.name}{where}",
            timeout=0,
            tags=[f"gr2-run:{self.run_name}", *([_tag(key)] if rank == 0 else [])],
            job_variables=needs if pool.type == "kubernetes" else {},
        )
        self.callbacks.line(stage.name, f"placed on pool '{pool.name}'{where}")
        return Order(made.id, rank)

    def _listen(self, client: Any, stage: Stage, pool: Pool, order: Order) -> None:
        """Looks once. Passing for a node that is lost, StageFailed for a stage that failed."""
        order.state = client.read_flow_run(order.id).state
        if order.state.is_final():
            order.beat = read_beat(client, order.id)
            return _judge(stage, order)
        now = time.monotonic()
        if order.state.is_running():
            beat = read_beat(client, order.id)
            if beat and (order.beat is None or beat.count != order.beat.count):
                if order.beat is None and order.rank == 0:
                    self.callbacks.started(stage.name)
                if beat.line and (order.beat is None or beat.line != order.beat.line):
                    self.callbacks.progress(stage.name, f"{beat.facts.get('host', '')}: {beat.line}")
                order.beat, order.heard = beat, now
            if order.beat and now - order.heard > self.placement.lease_s:
                _crash(client, order, f"not heard of for {self.placement.lease_s:.0f} s")
                raise TransientError(f"its node{_host(order)} is lost: not heard of for {self.placement.lease_s:.0f} s")
        if order.beat is None and not order.state.is_scheduled() and now - order.heard > self.placement.pending_s:
            _crash(client, order, "taken by a worker, never begun")
            raise TransientError(f"a worker of pool '{pool.name}' took it and did not begin for {self.placement.pending_s:.0f} s")
        if order.state.is_scheduled():
            order.heard = now
            if now - order.said > WAITING_SAID_S:
                order.said = now
                self.callbacks.line(
                    stage.name, f"waiting for a worker of pool '{pool.name}' (gr2 worker {pool.name} --placement {self.placement.name})"
                )
        return None


def _judge(stage: Stage, order: Order) -> None:
    state = order.state
    if state.is_completed():
        return
    message = state.message or state.name
    if state.is_crashed() or state.name == TRANSIENT:
        raise TransientError(f"its node{_host(order)} failed it: {message}")
    if state.is_cancelled():
        raise StageFailed(stage.name, f"cancelled from outside: {message}")
    raise StageFailed(stage.name, message)


def _host(order: Order) -> str:
    return f" {order.beat.facts.get('host', '')}" if order.beat else ""


def _cancel(client: Any, order: Order) -> None:
    """Ends what is still at work: the other nodes of a stage that failed on one, or all of them after Ctrl-C."""
    from prefect.states import Cancelling

    if order.state is None or not order.state.is_final():
        try:
            if not client.read_flow_run(order.id).state.is_final():
                client.set_flow_run_state(order.id, Cancelling())
        except Exception:  # a server that is gone cannot be told; the node's lease or its own end will do
            return


def _crash(client: Any, order: Order, why: str) -> None:
    """Says on the server that the run is lost, so that its slots are free. A node that was only cut off learns it from its lease."""
    from prefect.states import Crashed

    client.set_flow_run_state(order.id, Crashed(message=why), force=True)
    order.state = client.read_flow_run(order.id).state


def _tag(key: str) -> str:
    return f"gr2-key:{key}"

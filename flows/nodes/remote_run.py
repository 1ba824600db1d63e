"""One flow run on one node, as the orchestrator sees it: its last state and heartbeat, and what its end means."""

import time
from dataclasses import dataclass, field
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.states import Cancelling, Crashed

from flows.nodes.messages import Heartbeat
from flows.nodes.stage_flow import TRANSIENT
from tasks.project.graph import Stage
from tasks.run.retries import TransientError
from tasks.system.errors import StageFailed


@dataclass
class RemoteRun:
    """One flow run on one node, and the last state and heartbeat read of it. Times are those of `time.monotonic`."""

    id: UUID
    rank: int
    waiting_reported: float = field(default_factory=time.monotonic)  # when the console last said that it waits for a worker
    last_sign: float = field(default_factory=time.monotonic)  # of life: a new heartbeat, or still in the pool's queue
    heartbeat: Heartbeat | None = None
    state: State[None] | None = None

    @property
    def completed(self) -> bool:
        return self.state is not None and self.state.is_completed()

    @property
    def over(self) -> bool:
        return self.state is not None and self.state.is_final()


def raise_failure(stage: Stage, run: RemoteRun, state: State[None]) -> None:
    """Raises what the final `state` means; nothing for a run that has completed."""
    if state.is_completed():
        return
    message = state.message or state.name or "no reason is given"
    if state.is_crashed() or state.name == TRANSIENT:
        raise TransientError(f"its node{host_of(run)} failed it: {message}")
    if state.is_cancelled():
        raise StageFailed(stage.name, f"cancelled from outside: {message}")
    raise StageFailed(stage.name, message)


def host_of(run: RemoteRun) -> str:
    return f" {run.heartbeat.node.host}" if run.heartbeat else ""


def cancel(client: SyncPrefectClient, run: RemoteRun) -> None:
    """Ends what is still at work: the other nodes of a stage that failed on one, or all of them after Ctrl-C."""
    if not run.over:
        try:
            state = client.read_flow_run(run.id).state
            if state is None or not state.is_final():
                client.set_flow_run_state(run.id, Cancelling())
        except Exception:  # a server that is gone cannot be told; the node ends when its lease does, or with its stage
            return


def crash(client: SyncPrefectClient, run: RemoteRun, message: str) -> None:
    """Marks the run as lost on the server, which frees its slots. A node that was only cut off ends when it cannot renew its lease."""
    client.set_flow_run_state(run.id, Crashed(message=message), force=True)  # force: whatever state the server has it in
    run.state = client.read_flow_run(run.id).state

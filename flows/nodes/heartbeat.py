"""Heartbeats, by which the orchestrator follows a stage on a node: one artifact of the node's flow run, rewritten every few seconds.

The orchestrator looks whether the count still goes up, never at the node's clock: clocks of two machines differ, and may jump.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType

from flows.nodes.messages import Heartbeat, read_message

ARTIFACT_TYPE = "gr2-node"


@contextmanager
def send_heartbeats(flow_run: str, every_s: float, heartbeat: Heartbeat) -> Iterator[threading.Event]:
    """Writes `heartbeat` every `every_s` seconds, and at once when the event it yields is set; a last time at the end.

    A server that does not answer is no error: the orchestrator decides what silence means.
    """
    wake, ended = threading.Event(), threading.Event()
    with get_client(sync_client=True) as client:
        first = ArtifactCreate(type=ARTIFACT_TYPE, data=heartbeat.model_dump_json(), flow_run_id=UUID(flow_run))
        artifact = client.create_artifact(first)

        def write() -> None:
            heartbeat.count += 1
            with suppress(Exception):  # whatever the network does; the next heartbeat may get through
                client.update_artifact(artifact.id, ArtifactUpdate(data=heartbeat.model_dump_json()))

        def loop() -> None:
            while not ended.is_set():
                wake.wait(every_s)
                wake.clear()
                write()

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield wake
        finally:
            ended.set()
            wake.set()  # the loop may be in the middle of its wait
            thread.join()
            write()


def read_heartbeat(client: SyncPrefectClient, flow_run: UUID) -> Heartbeat | None:
    """The node's latest one; None before its first. ProjectError for one that another version of gr2 wrote."""
    of_run = ArtifactFilterFlowRunId(any_=[flow_run])
    artifacts = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=of_run, type=ArtifactFilterType(any_=[ARTIFACT_TYPE])))
    heartbeats = [read_message(Heartbeat, str(artifact.data), f"the heartbeat of flow run {flow_run}") for artifact in artifacts]
    return max(heartbeats, key=lambda heartbeat: heartbeat.count, default=None)

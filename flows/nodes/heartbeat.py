"""How the orchestrator hears of a stage on a node: one artifact of the node's flow run, written anew every few seconds.

Silence, not a clock, tells a lost node: the orchestrator looks whether the count goes on, so clocks may differ and jump.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

KIND = "gr2-node"


@dataclass
class Beat:
    """What a node says of itself: `count` goes up; `line` is the stage's last word; `facts` are the node's, for the lineage record."""

    count: int = 0
    line: str = ""
    address: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    outcome: dict[str, Any] = field(default_factory=dict)


@contextmanager
def beating(flow_run: str, every_s: float, beat: Beat) -> Iterator[threading.Event]:
    """Writes `beat` every `every_s` seconds, and at once when the event it yields is set; a last time at the end.

    A server that does not answer is passed over: the orchestrator decides what silence means.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

    wake, ended = threading.Event(), threading.Event()
    with get_client(sync_client=True) as client:
        artifact = client.create_artifact(ArtifactCreate(type=KIND, data=_data(beat), flow_run_id=UUID(flow_run)))

        def write() -> None:
            beat.count += 1
            with suppress(Exception):  # whatever the network does; the next beat may get through
                client.update_artifact(artifact.id, ArtifactUpdate(data=_data(beat)))

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
            wake.set()
            thread.join()
            write()


def read_beat(client: Any, flow_run: UUID) -> Beat | None:
    """The node's latest word; None before its first."""
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType

    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]), type=ArtifactFilterType(any_=[KIND]))
    found = client.read_artifacts(artifact_filter=wanted)
    return (
        Beat(**json.loads(max((str(artifact.data) for artifact in found), key=lambda text: json.loads(text)["count"]))) if found else None
    )


def _data(beat: Beat) -> str:
    return json.dumps(vars(beat))

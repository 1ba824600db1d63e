"""The same events to a lineage server (Marquez, DataHub), where openlineage-python's own configuration asks for it.

A thread sends them, so that a run never waits for the server; what cannot be sent is said once. The record in the project has all.
"""

import os
import queue
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

FLUSH_S = 5.0  # the longest a run waits at its end
RETRIES = {"total": 1, "backoff_factor": 0.1, "connect": 0}


class Sender:
    """Sends in order; after the first failure it drops the rest of this process's events."""

    def __init__(self, client: Any):
        self.client = client
        self.events: queue.Queue[object] = queue.Queue()
        self.failed = False
        threading.Thread(target=self._work, name="lineage", daemon=True).start()

    def send(self, event: object) -> None:
        if not self.failed:
            self.events.put(event)

    def flush(self, seconds: float) -> None:
        done = self.events.all_tasks_done
        with done:
            sent = done.wait_for(lambda: not self.events.unfinished_tasks, seconds)
        if not sent:
            self._give_up(f"no answer within {seconds:.0f} s")

    def _work(self) -> None:
        while True:
            event = self.events.get()
            try:
                if not self.failed:
                    self.client.emit(event)
            except Exception as error:  # whatever a transport raises, it must not reach the run
                self._give_up(f"{type(error).__name__}: {error}")
            self.events.task_done()

    def _give_up(self, why: str) -> None:
        if not self.failed:
            self.failed = True
            print(f"gr2: lineage events do not reach the server and stay in .gr2/lineage alone ({why[:300]})", file=sys.stderr)


def emit(event: object) -> None:
    sender = _sender()
    if sender:
        sender.send(event)


def flush(seconds: float = FLUSH_S) -> None:
    """Waits until all is sent, no longer than `seconds`."""
    if is_configured() and (sender := _sender()):
        sender.flush(seconds)


def is_configured() -> bool:
    """Whether OPENLINEAGE_URL, OPENLINEAGE_CONFIG, OPENLINEAGE__TRANSPORT__* or an openlineage.yml here or at home asks for it."""
    in_environment = any(
        name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG") or name.startswith("OPENLINEAGE__TRANSPORT") for name in os.environ
    )
    files = (Path("openlineage.yml"), Path.home() / ".openlineage" / "openlineage.yml")
    return os.environ.get("OPENLINEAGE_DISABLED", "").lower() != "true" and (in_environment or any(file.is_file() for file in files))


@cache
def _sender() -> Sender | None:
    if not is_configured():
        return None
    from openlineage.client import OpenLineageClient

    try:
        client = OpenLineageClient()
    except Exception as error:  # its configuration is checked by each transport in its own way
        print(f"gr2: lineage events are not sent: openlineage's configuration is wrong ({error})", file=sys.stderr)
        return None
    client.config.facets.environment_variables = []  # none is ever sent, whatever the configuration asks for
    _retry_less(client.transport)
    return Sender(client)


def _retry_less(transport: Any) -> None:
    """openlineage-python tries a server that is down six times over, for up to half a minute an event."""
    for transport_part in getattr(transport, "transports", [transport]):
        if getattr(transport_part, "kind", "") == "http":
            transport_part.config.retry = {**transport_part.config.retry, **RETRIES}

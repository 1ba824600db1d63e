"""The client of a Prefect server that outlives a single run, which nodes and schedules need."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.server.ephemeral import is_ephemeral
from tasks.system.errors import ProjectError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


@contextmanager
def connected(component: str) -> "Iterator[SyncPrefectClient]":
    """A client of the server that PREFECT_API_URL names; ProjectError when none is named or answers. `component` ("nodes") needs it."""
    # Imported here: Prefect reads its settings at its import, and the caller may set them just before (flows.server.settings).
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url or is_ephemeral(url):
        raise ProjectError(
            f"{component} need a Prefect server that stays: start one with `gr2 server` where all can reach it, then "
            "export PREFECT_API_URL=http://HOST:4200/api (docs/schedules.md)"
        )
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            reason = str(error) or type(error).__name__
            raise ProjectError(f"no Prefect server answers at PREFECT_API_URL={url} ({reason}); start it with: gr2 server")
        yield client

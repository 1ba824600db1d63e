"""The client of a Prefect server that outlives a single run, which nodes and schedules need."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flows.server.ephemeral import is_ephemeral
from tasks.system.errors import ProjectError


@contextmanager
def connected(who: str) -> Iterator[Any]:
    """A client of the server that PREFECT_API_URL names; ProjectError when none is named, or none answers. `who` needs it ("nodes")."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url or is_ephemeral(url):
        raise ProjectError(
            f"{who} need a Prefect server that stays: start one with `prefect server start` where all can reach it, then "
            "export PREFECT_API_URL=http://HOST:4200/api (docs/schedules.md)"
        )
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            reason = str(error) or type(error).__name__
            raise ProjectError(f"no Prefect server answers at PREFECT_API_URL={url} ({reason}); start it with: prefect server start")
        yield client

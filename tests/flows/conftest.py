"""One Prefect server for the tests of the flow, as a team would run it; and the toy project of tests/tasks."""

from collections.abc import Iterator

import pytest

from tests.support import postgres, prefect_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API address of a real Prefect server."""
    with postgres.if_installed() as database, prefect_server.serve(tmp_path_factory.mktemp("prefect"), **database) as url:
        yield url

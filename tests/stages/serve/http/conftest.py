"""What several tests of the server share."""

import pytest

from stages.serve.catalogue import IdCatalogue


@pytest.fixture(scope="package")
def catalogue(finished_run) -> IdCatalogue:
    return IdCatalogue.read()

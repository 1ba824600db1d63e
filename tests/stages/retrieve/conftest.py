import pytest

from stages.shared.core.schemas import INTERACTIONS, ITEMS, write_table
from tests.support.retrieve_project import interactions, items, write_prompt_params


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/ingest").mkdir(parents=True)
    write_table(interactions(), tmp_path / "data/ingest/interactions.parquet", INTERACTIONS)
    write_table(items(), tmp_path / "data/ingest/items.parquet", ITEMS)
    write_prompt_params(tmp_path)
    return tmp_path

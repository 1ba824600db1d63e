import pytest
from prerank_project import interactions, items

from stages.shared.tables import INTERACTIONS, ITEMS, write_table


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/ingest").mkdir(parents=True)
    write_table(interactions(), tmp_path / "data/ingest/interactions.parquet", INTERACTIONS)
    write_table(items(), tmp_path / "data/ingest/items.parquet", ITEMS)
    return tmp_path

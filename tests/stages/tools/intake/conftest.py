import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the default profile, to work in."""
    root = tmp_path / "project"
    (root / "infra/profiles").mkdir(parents=True)
    shutil.copy(ROOT / "infra/profiles/default.yaml", root / "infra/profiles")
    monkeypatch.chdir(root)
    return root

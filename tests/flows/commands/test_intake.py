"""gr2 init and gr2 validate hand the project's own tools what was asked, and take over their exit codes."""

from pathlib import Path

import pytest

from flows import cli
from flows.commands.intake import init, validate
from tests.support import dvc_toy


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = dvc_toy.make(tmp_path / "toy")
    (root / "infra/profiles").mkdir(parents=True)
    (root / "infra/profiles/default.yaml").write_text(dvc_toy.PARAMS)
    (root / "infra/profiles/big.yaml").write_text("b: {x: 50}\n")
    (root / "below").mkdir()
    monkeypatch.chdir(root / "below")
    return root


def test_init_gets_the_folder_as_seen_from_where_gr2_was_called(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(init, "run_tool", lambda name, *words, package: asked.append((package, name, *words)) or 2)
    assert cli.main(["init", "mine", "--time-format", "%d/%m/%Y", "--items", "none", "--json"]) == 2
    assert asked == [("stages.tools.intake", "init", "--items=none", "--time-format=%d/%m/%Y", "--json", "--", str(toy / "below/mine"))]


def test_validate_looks_at_the_profile_and_changes_nothing(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(validate, "run_tool", lambda name, path, *words: seen.append(f"{name} {Path(path).read_text()} {words}") or 1)
    before = (toy / "params.yaml").read_text()
    assert cli.main(["validate", "--profile", "big", "--set", "a.x=9", "--json"]) == 1
    assert cli.main(["validate"]) == 1
    assert "x: 50" in seen[0] and "x: 9" in seen[0] and "('--json',)" in seen[0] and before in seen[1]
    assert (toy / "params.yaml").read_text() == before

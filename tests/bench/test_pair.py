"""What a bench script has made of a plain pair serves that pair alone."""

import subprocess
from pathlib import Path

import pytest

from bench import beauty
from tests.support.raw_reading import write


def test_a_scratch_folder_is_of_one_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def stage(command: list[str], cwd: Path, **_: object) -> None:
        made.append(cwd)
        (cwd / "data/embed").mkdir(parents=True, exist_ok=True)
        (cwd / "data/embed/embeddings.npy").touch()

    monkeypatch.setattr(subprocess, "run", stage)
    one = write(tmp_path / "garden_lamps", sequences__txt="1 1\n", items__jsonl="{}\n")
    other = write(tmp_path / "other", sequences__txt="1 2\n", items__jsonl="{}\n")
    projects = [beauty.prepare(folder, tmp_path / "scratch") for folder in (one, other, one)]
    assert projects[0] == projects[2] != projects[1] and made == [projects[0]] * 2 + [projects[1]] * 2
    write(one, items__jsonl='{"title": "edited"}\n')
    assert beauty.prepare(one, tmp_path / "scratch") not in projects
    assert beauty.name_of(one) == "Garden Lamps"
    (one / "items.jsonl").unlink()
    with pytest.raises(SystemExit, match=r"no items\.jsonl; --data must name"):
        beauty.prepare(one, tmp_path / "scratch")

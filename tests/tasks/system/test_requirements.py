"""An installation that lacks packages: one line that names them and the extra to choose, whatever the command."""

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from tasks.system.errors import ProjectError
from tasks.system.requirements import check_installed
from tests.support import dvc_toy

# As sitecustomize.py: importing these packages fails as where they were never installed, and so does looking for them.
LACKING = """\
import sys
from importlib import metadata
PACKAGES = {packages}
sys.modules.update(dict.fromkeys(PACKAGES))  # None there: not found
def distribution(name, distribution=metadata.distribution):
    if name in PACKAGES:
        raise metadata.PackageNotFoundError(name)
    return distribution(name)
metadata.distribution = distribution
"""


def lacking(folder: Path, *packages: str) -> dict[str, str]:
    """The environment of an installation without `packages`."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(LACKING.format(packages=set(packages)))
    return {"PYTHONPATH": f"{folder}:{dvc_toy.ROOT}"}


@pytest.mark.parametrize(
    ("packages", "words", "line"),
    [
        (["torch"], ["run"], "gr2: torch is not installed for"),
        (["torch", "deepspeed"], ["run", "a"], "gr2: deepspeed, torch are not installed for"),
        (["torch"], ["worker"], "gr2: torch is not installed for"),
        (["dvc"], ["plan"], "gr2: dvc is not installed for"),
        (["ruamel"], ["plan"], "gr2: ruamel is not installed for"),
    ],
)
def test_one_line_names_what_is_missing_and_the_remedy(tmp_path: Path, packages: list[str], words: list[str], line: str) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    result = dvc_toy.gr2(root, *words, ok=False, **lacking(tmp_path / "lacking", *packages))
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.startswith(line), result.stderr
    assert "make setup" in result.stderr and ".[cpu]" in result.stderr and not (root / "data").exists()


def test_help_and_plans_need_no_machine_learning(tmp_path: Path) -> None:
    root, env = dvc_toy.make(tmp_path / "toy"), lacking(tmp_path / "lacking", "torch", "vllm", "transformers", "deepspeed", "polars")
    assert "COMMAND" in dvc_toy.gr2(root, "--help", **env).stdout
    assert "never run" in dvc_toy.gr2(root, "plan", **env).stdout + dvc_toy.gr2(root, "run", "--dry", **env).stdout


def requires(*lines: str) -> Callable[[str], list[str]]:
    return lambda name: list(lines)


def test_extras_are_the_users_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", requires("pytest>=1", 'not-there>=1; extra == "gpu"'))
    check_installed()
    monkeypatch.setattr(metadata, "requires", requires("pytest>=1", "not-there<2"))
    with pytest.raises(ProjectError, match=f"^not-there is not installed for {sys.executable}: run make setup, or pip install"):
        check_installed()


def test_a_checkout_that_is_not_installed_has_nothing_to_go_by(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", not_found)
    check_installed()

"""`gr2 seeds`: folders and options reach the stage's own command, its words and exit code come back."""

from pathlib import Path

import pytest

from tests.support import dvc_toy

ECHO = "import sys\nprint('|'.join(sys.argv[1:]))\nsys.exit(7)\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    module = tmp_path / "stages/tools/compare_seeds.py"
    module.parent.mkdir(parents=True)
    for folder in (module.parent, module.parent.parent):
        (folder / "__init__.py").touch()
    module.write_text(ECHO)
    return tmp_path


def test_folders_are_those_of_the_callers_place(project: Path) -> None:
    (project / "runs").mkdir()
    words = ["seeds", "7", "../8", str(project / "9"), "--metric", "mrr", "--against=sft", "--json"]
    result = dvc_toy.gr2(project / "runs", *words, ok=False)
    assert result.returncode == 7
    assert result.stdout.strip() == "--metric=mrr|--against=sft|--json|--|runs/7|8|9"
    assert dvc_toy.gr2(project, "seeds", "7", ok=False).stdout.strip() == "--|7"
    assert dvc_toy.gr2(project, "seeds", ok=False).returncode == 2

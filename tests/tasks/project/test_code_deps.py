"""Which files a stage imports, and dvc.yaml put right."""

from pathlib import Path

import pytest

from tasks.project.code_deps import gaps, project_imports, write_deps
from tasks.project.graph import read_graph
from tasks.system.errors import ProjectError

FILES = {
    "stages/__init__.py": "",
    "stages/shared/__init__.py": "",
    "stages/shared/core/run.py": "import json\nfrom stages.shared import errors\n",
    "stages/shared/core/errors.py": "",
    "stages/shared/lazy.py": "import stages.shared.deep.bottom\n",
    "stages/shared/deep/__init__.py": "from .side import X\n",
    "stages/shared/deep/bottom.py": "from ..errors import E\n",
    "stages/shared/deep/side.py": "X = 1\n",
    "stages/shared/spawned.py": "",
    "stages/shared/unused.py": "",
    "stages/one/__init__.py": "",
    "stages/one/__main__.py": "from stages.shared.core.run import run_stage\nfrom stages.one import work\n",
    "stages/one/work.py": "def f():\n    from stages.shared import lazy\n    return ['-m', 'stages.shared.spawned']\n",
    "stages/one/page.html": "<p>",
    "stages/one/notes.md": "",
}
YAML = """\
# the graph
stages:
  one:
    cmd: python -m stages.one
    deps:
      - stages/one/__main__.py # the door
      - stages/shared/core/run.py
      - stages/shared/unused.py
      - data/raw.csv # what it reads
    outs: [data/one] # what it makes
  other:
    cmd: echo
"""
NEEDED = sorted(set(FILES) - {"stages/shared/unused.py", "stages/one/notes.md"})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "dvc.yaml").write_text(YAML)
    return tmp_path


def test_project_imports(project: Path) -> None:
    assert project_imports(project, "stages.one") == set(NEEDED) - {"stages/one/page.html"}
    assert project_imports(project, "stages.one.__main__") == project_imports(project, "stages.one")
    with pytest.raises(ProjectError, match="no such module"):
        project_imports(project, "stages.two")
    (project / "stages/one/work.py").write_text("def (")
    with pytest.raises(ProjectError, match=r"work\.py: not readable"):
        project_imports(project, "stages.one")


def test_gaps_and_write(project: Path) -> None:
    found = gaps(project, read_graph(project))
    assert list(found) == ["one"]
    assert found["one"].missing == tuple(sorted(set(NEEDED) - {"stages/one/__main__.py", "stages/shared/core/run.py"}))
    assert found["one"].stale == ("stages/shared/unused.py",)
    write_deps(project, read_graph(project))
    assert gaps(project, read_graph(project)) == {}
    assert list(read_graph(project)["one"].deps) == [*NEEDED, "data/raw.csv"]
    text = (project / "dvc.yaml").read_text()
    for comment in ("# the graph", "# the door", "# what it reads", "# what it makes"):
        assert comment in text
    assert "      - stages/one/__main__.py # the door\n" in text
    write_deps(project, read_graph(project))
    assert (project / "dvc.yaml").read_text() == text


def test_a_listed_folder_covers_its_files(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages:\n  one: {cmd: python -m stages.one, deps: [stages]}\n")
    assert gaps(project, read_graph(project)) == {}


def test_write_leaves_templates_as_they_are(project: Path) -> None:
    (project / "params.yaml").write_text("one: {reads: data/items}\n")
    templated = '      - "${one.reads}" # of params.yaml\n'
    (project / "dvc.yaml").write_text(YAML.replace("    outs:", templated + "    outs:"))
    write_deps(project, read_graph(project))
    assert templated in (project / "dvc.yaml").read_text()
    assert list(read_graph(project)["one"].deps) == [*NEEDED, "data/raw.csv", "data/items"]
    (project / "params.yaml").write_text("one: {reads: stages/shared/unused.py}\n")
    with pytest.raises(ProjectError, match=r"unused\.py comes of a \$"):
        write_deps(project, read_graph(project))

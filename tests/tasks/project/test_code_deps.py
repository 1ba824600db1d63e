"""Which files a stage imports, and whether dvc.yaml lists them."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tasks.project.code_deps import code_files, gaps, project_imports
from tasks.project.graph import read_graph
from tasks.system.errors import ProjectError

FILES = {
    "stages/__init__.py": "",
    "stages/shared/__init__.py": '"""Shared."""\n',
    "stages/shared/core/run.py": "import json\nfrom stages.shared.core import errors\n",
    "stages/shared/core/errors.py": "",
    "stages/shared/lazy.py": "import stages.shared.deep.bottom\n",
    "stages/shared/deep/__init__.py": "from .side import X\n",
    "stages/shared/deep/bottom.py": "from ..core.errors import E\n",
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
EMPTY = {"stages/__init__.py", "stages/shared/__init__.py", "stages/one/__init__.py"}  # nothing but a docstring: no dep
NEEDED = sorted(set(FILES) - EMPTY - {"stages/shared/unused.py", "stages/one/notes.md"})


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


def test_gaps(project: Path) -> None:
    found = gaps(project, read_graph(project))
    assert list(found) == ["one"]
    assert found["one"].missing == tuple(sorted(set(NEEDED) - {"stages/one/__main__.py", "stages/shared/core/run.py"}))
    assert found["one"].missing_packages == ["stages.one", "stages.shared", "stages.shared.core", "stages.shared.deep"]
    assert found["one"].stale == ("stages/shared/unused.py",)


def test_a_helper_outside_of_stages_is_noticed(project: Path) -> None:
    """One next to stages/, and one in another package of the project; a library is none."""
    (project / "helper.py").write_text("import json\n")
    (project / "rooms").mkdir()
    (project / "rooms/__init__.py").write_text("X = 1\n")
    (project / "rooms/door.py").touch()
    (project / "stages/one/work.py").write_text("import numpy\nimport helper\nfrom rooms import door\n")
    (project / "dvc.yaml").write_text("stages:\n  one: {cmd: python -m stages.one, deps: [stages]}\n")
    found = gaps(project, read_graph(project))["one"]
    assert found.missing == ("helper.py", "rooms/__init__.py", "rooms/door.py")
    assert found.missing_packages == ["helper.py", "rooms"]


def test_a_listed_folder_covers_its_files(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages:\n  one: {cmd: python -m stages.one, deps: [stages]}\n")
    assert gaps(project, read_graph(project)) == {}


# Where a helper may stand, and how it may be imported.
PLACES = [
    "stages/shared/helper.py",
    "stages/shared/new/helper.py",
    "stages/other/helper.py",
    "helper.py",
    "helpers/helper.py",
    "helpers/deep/helper.py",
]
FORMS = [
    "import {module}",
    "import {module} as h",
    "from {module} import VALUE",
    "from {module} import *",
    "def f():\n    import {module}",
    "try:\n    import {module}\nexcept ImportError:\n    pass",
    "from {parent} import helper",
    "from {parent} import helper as h, other",
    "import importlib\nh = importlib.import_module('{module}')",
]


@settings(max_examples=60, deadline=None)
@given(place=st.sampled_from(PLACES), form=st.sampled_from(FORMS), packages=st.booleans(), through=st.booleans())
def test_a_helper_that_dvc_yaml_lacks_is_named_wherever_it_stands(place: str, form: str, packages: bool, through: bool) -> None:
    """packages: its folders have an __init__.py, without which Python imports them as well; through: by a module that is listed."""
    module = place.removesuffix(".py").replace("/", ".")
    parent = module.rpartition(".")[0]
    assume(parent or "{parent}" not in form)
    line = form.format(module=module, parent=parent)
    files = {
        "stages/one/__main__.py": "from stages.one import aside, between\n" if through else line,
        "stages/one/between.py": line,
        place: "VALUE = 1\n",
        "dvc.yaml": "stages:\n  one: {cmd: python -m stages.one, deps: [stages/one]}\n",
    }
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        if packages:
            for above in Path(place).parents[:-1]:
                (root / above / "__init__.py").touch()
        graph = read_graph(root)
        assert gaps(root, graph)["one"].missing == (place,)
        (root / "dvc.yaml").write_text(f"stages:\n  one: {{cmd: python -m stages.one, deps: [stages/one, {place}]}}\n")
        assert gaps(root, read_graph(root)) == {} and root / place in code_files(root, read_graph(root))

"""The layers between and inside the rooms, the size of packages, and that dvc.yaml lists all the code a stage runs."""

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from bench import import_edges
from tasks.project.code_deps import gaps
from tasks.project.graph import read_graph

ROOT = Path(__file__).resolve().parents[1]
# Import edges between files at 0.1.0 (commit 6472c40), where the file was the unit: python bench/import_edges.py --root THERE
EDGES_BEFORE = {"tasks": 191, "flows": 62, "stages/shared": 54, "stages": 603}
SOURCES = sorted(path for room in ("stages", "flows", "tasks", "tests", "bench", "infra", "docs") for path in (ROOT / room).rglob("*.py"))

CODE = sorted(path for room in ("stages", "tasks", "flows") for path in (ROOT / room).rglob("*.py"))


def test_deps_list_what_stages_import() -> None:
    graph = read_graph(ROOT)
    assert gaps(ROOT, graph) == {}, "dvc.yaml is edited by hand; gr2 deps names what it lacks"
    for stage in graph.stages.values():
        assert stage.cmd == f"python -m stages.{stage.name}"


def test_deps_of_shards_list_what_they_import() -> None:
    sharded = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("shards: []", "shards: [0]")
    graph = read_graph(ROOT, sharded)
    shards = [name for name in graph.order if "@" in name]
    assert len(shards) == 2 and gaps(ROOT, graph) == {}
    for name in shards:  # what decides a shard's bytes is its own to declare: keys of the section, never the whole of it
        section = name.split("_")[0]
        assert f"{section}.shards" in graph[name].params["params.yaml"] and section not in graph[name].params["params.yaml"]
        assert set(graph[name].deps) <= {*graph[section].deps, f"stages/{section}"}


def test_a_planted_gap_is_found(tmp_path: Path) -> None:
    package = tmp_path / "stages" / "x"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text("def f():\n    import stages.x.late\n")
    (package / "late.py").touch()
    (tmp_path / "dvc.yaml").write_text("stages:\n  x: {cmd: python -m stages.x, deps: [stages/x/__main__.py, stages/x/gone.py]}\n")
    found = gaps(tmp_path, read_graph(tmp_path))["x"]
    assert (found.missing, found.stale) == (("stages/x/late.py",), ("stages/x/gone.py",))


def test_import_contracts() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([str(lint), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_package_is_large() -> None:
    sizes = Counter(str(path.parent.relative_to(ROOT)) for path in CODE)  # subpackages are counted separately
    assert {package: size for package, size in sizes.items() if size > 15} == {}


@pytest.mark.parametrize("room", EDGES_BEFORE)
def test_packages_import_few_others(room: str) -> None:
    edges = import_edges.package_edges(import_edges.inside(import_edges.file_edges(ROOT), room))
    assert len(edges) <= EDGES_BEFORE[room] / 3, f"python bench/import_edges.py --list {room}"


def test_every_file_is_in_a_named_package() -> None:
    """Beside __init__.py, the rooms' own folders hold the command line alone, and no folder lacks an __init__.py."""
    alone = [path for room in ("stages", "stages/shared", "tasks", "flows") for path in (ROOT / room).glob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in alone if path.name != "__init__.py"} == {"flows/cli.py"}
    folders = {path.parent for path in CODE}
    assert sorted(str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()) == []


def test_dvc_yaml_can_be_read_by_a_person() -> None:
    lines = (ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 200
    assert [line for line in lines if len(line) > 140] == []


def test_no_class_name_is_defined_twice() -> None:
    homes = defaultdict(list)
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {name: lines for name, lines in homes.items() if len(lines) > 1} == {}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_remote_code_and_no_pickle(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            assert isinstance(node.value, ast.Constant) and node.value.value is False, f"{path}:{node.value.lineno}"
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {"pickle", "cloudpickle", "dill"}.intersection(name.split(".")[0] for name in names), f"{path} imports pickle"

"""Deps whose path is a value of params.yaml (`${section.key}` in dvc.yaml): whether they exist, before DVC is asked.

DVC would say that a dependency is missing, but not which key names it, nor what to write there.
"""

from collections.abc import Iterable
from pathlib import Path

from tasks.project.graph import Graph
from tasks.project.templates import PARAMS, default_value
from tasks.system.errors import ProjectError, nearest


def check_template_deps(root: Path, graph: Graph, names: Iterable[str]) -> None:
    """ProjectError for a dep of a stage in `names` that params.yaml names, that no stage makes, and that does not exist."""
    for name in names:
        for path, key in graph[name].dep_keys.items():
            # A path that has a .dvc file is DVC's to bring: `dvc pull` may not have been run yet.
            if not graph.makes(path) and not (root / path).exists() and not (root / f"{path}.dvc").exists():
                raise ProjectError(f"{PARAMS}: {key}: no such file or folder: {path}{_alternatives(root, graph, key, path)}")


def _alternatives(root: Path, graph: Graph, key: str, path: str) -> str:
    """What else `key` may hold: the profile default's value, and what lies in the same folder of the project."""
    default = default_value(root, key)
    if not isinstance(default, str):
        return ""
    text = f"; the default is {default}"
    # What lies next to a stage's output is other stages' outputs: no values for this key.
    if graph.producer(default) is None and (folder := (root / default).parent) != root and folder.is_dir():
        siblings = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() == (root / default).is_dir() and entry.name[0] != "."]
        by_name = {entry.name: str(entry.relative_to(root)) for entry in siblings}
        text = nearest(path, by_name.values()) + f" (in the project: {', '.join(by_name.values())}; the default: {default})"
    return f"{text}. CHANGELOG.md lists the values that were renamed"

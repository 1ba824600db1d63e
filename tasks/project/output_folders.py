"""Folders of outputs that are symbolic links: DVC says so only when the stage has run, and what the stage wrote is lost."""

from collections.abc import Iterable
from pathlib import Path

from tasks.project.graph import Graph
from tasks.system.errors import ProjectError


def check_output_folders(root: Path, graph: Graph, names: Iterable[str]) -> None:
    """ProjectError for an output of a stage in `names` that lies in a folder, or is one, that is a symbolic link.

    A file may be one: DVC links to its cache where its configuration says so.
    """
    for out in dict.fromkeys(out for name in names for out in graph[name].outs):
        # The last parent is ".", the project itself, which may well be reached through a link.
        for path in [Path(out), *Path(out).parents][:-1]:
            if (root / path).is_symlink() and (path != Path(out) or (root / path).is_dir()):
                raise ProjectError(
                    f"{path}: a symbolic link (to {(root / path).readlink()}), and DVC takes no output behind one; remove it, and for "
                    "another disk put DVC's cache there: dvc cache dir PATH"
                )

"""Folders of outputs before a run: symbolic links, of which DVC says only when the stage has run that what it wrote is lost; and what an
earlier number of shards left there."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from tasks.project.graph import Graph, holds
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


def drop_other_shards(root: Path, graph: Graph) -> None:
    """Removes what lies between the shards of a stage and is none of them: those of another number of shards, which DVC would hash along.

    DVC's cache keeps what it has of them.
    """
    outs = {out for stage in graph.stages.values() for out in stage.outs}
    folders = {dep for stage in graph.stages.values() for dep in stage.deps if not graph.producer(dep) and graph.makes(dep)}
    for folder in folders:
        for path in (root / folder).iterdir() if (root / folder).is_dir() else ():
            name = path.relative_to(root).as_posix()
            if not any(holds(name, out) for out in outs):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

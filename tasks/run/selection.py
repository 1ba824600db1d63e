"""Which stages a run is about: a part of the graph between a first and a last stage."""

from collections.abc import Iterable
from pathlib import Path

from tasks.dvc.lockfile import read_lock
from tasks.project.graph import Graph
from tasks.system.errors import ProjectError


def select(root: Path, graph: Graph, until: Iterable[str] | None = None, start: str | None = None) -> list[str]:
    """The stages to deal with, upstream first: `until` and what they need (None or none: all), from `start` on.

    What lies before `start` is taken as it stands; ProjectError when a stage there has never run.
    """
    names = graph.closure(until)
    if start is None:
        return names
    with_downstream = graph.with_downstream(start)
    chosen = [name for name in names if name in with_downstream]
    if not chosen:
        raise ProjectError(f"nothing lies between '{start}' and {', '.join(until or ())}: '{start}' is not among what they need")
    lock = read_lock(root)
    # Their outputs are taken as they are, so they have to exist.
    before = {upstream for name in chosen for upstream in graph.upstream(name)} - set(chosen)
    if missing := sorted(before - set(lock)):
        raise ProjectError(
            f"'{start}' cannot be the first: {', '.join(missing)}, which it needs, has never run; run: gr2 run {' '.join(missing)}"
        )
    return chosen

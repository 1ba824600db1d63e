"""New raw data: the stage `fetch` asks the publisher, and DVC compares what `ingest` reads with what it read last."""

from pathlib import Path

from tasks.project.graph import Graph
from tasks.run.plan import make_plan

FETCH = "fetch"
INGEST = "ingest"


def fetch_stages(graph: Graph) -> list[str]:
    """The stages that a look for new data runs, also when they are current: what a publisher has changed, DVC cannot see."""
    return [FETCH] if FETCH in graph.stages else []


def raw_changes(root: Path, graph: Graph) -> list[str]:
    """How the data that `ingest` reads differ from those of its last run, a line each; empty: not at all. Ask after `fetch` has run."""
    causes = make_plan(root, graph, graph.closure([INGEST]))[INGEST].causes
    return [str(cause) for cause in causes if cause.kind in ("data", "new")]

"""Lineage as a picture: raw file, stages and their outputs from left to right, models marked."""

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.lineage.query import LineageChain
from tasks.lineage.versions import RunFacts
from tasks.system.errors import ProjectError

if TYPE_CHECKING:
    import networkx as nx

FORMATS = (".svg", ".png")
COLOURS = {"raw": "#f4d58d", "stage": "#dbe7f0", "used by": "#e9e9e9", "model": "#b7d7b0", "requested": "#f2a97e"}


def draw(chain: LineageChain, file: Path) -> None:
    """Writes `file`, .svg or .png. Downstream of it only models are drawn, if there are any."""
    if file.suffix.lower() not in FORMATS:
        raise ProjectError(f"{file}: a picture ends in {' or '.join(FORMATS)}")
    if not file.parent.is_dir():
        raise ProjectError(f"{file}: no such folder: {file.parent}")
    import matplotlib  # here and below: these imports take a second, and the checks above need none of them

    matplotlib.use("Agg")  # there may be no display
    matplotlib.rcParams["svg.hashsalt"] = "gr2"  # ids in an SVG are random otherwise, so the same lineage would give other bytes
    import networkx as nx
    from matplotlib import pyplot as plt

    graph = _graph(chain)
    for depth, generation in enumerate(nx.topological_generations(graph)):
        for node in generation:
            graph.nodes[node]["layer"] = depth
    positions = nx.multipartite_layout(graph, subset_key="layer")
    depth = 1 + max(data["layer"] for _, data in graph.nodes(data=True))
    widest = max(sum(data["layer"] == layer for _, data in graph.nodes(data=True)) for layer in range(depth))
    figure, axes = plt.subplots(figsize=(2.6 * depth + 1, 0.9 * widest + 1.5))
    nx.draw_networkx_edges(graph, positions, ax=axes, edge_color="#8a8a8a", node_size=2600, arrowsize=10)
    for node, (x, y) in positions.items():
        box = {"boxstyle": "round", "facecolor": COLOURS[graph.nodes[node]["kind"]], "edgecolor": "#606060"}
        axes.text(x, y, graph.nodes[node]["label"], ha="center", va="center", fontsize=7, bbox=box)
    axes.set_title(f"{chain.path}  {chain.hash[:12]}", fontsize=9)
    axes.margins(0.12)
    axes.axis("off")
    unfinished = file.with_name(f".{file.name}.new{file.suffix}")
    metadata: dict[str, str | None] = {"Date": None} if file.suffix.lower() == ".svg" else {}  # else the bytes change with the time
    figure.savefig(unfinished, bbox_inches="tight", dpi=150, metadata=metadata)
    plt.close(figure)
    unfinished.replace(file)  # whoever reads `file` never sees half a picture


def _graph(chain: LineageChain) -> "nx.DiGraph[str]":
    """Nodes: the raw file, each stage and version upstream, the requested thing, and the outputs made from it."""
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    makers: dict[str, list[str]] = {}  # stage -> its nodes
    for link in reversed(chain.stages):
        first_hash = next(iter(link.outputs.values()), {"hash": ""})["hash"]
        name = f"{link.name} {first_hash}"  # the hash tells versions of one stage apart
        graph.add_node(name, kind="stage", label=f"{link.name}\n{len(link.outputs)} outputs\n{_revision(link.run)}")
        for upstream in link.upstream:
            graph.add_edges_from((maker, name) for maker in makers.get(upstream, []))
        if isinstance(raw := link.metrics.get("raw"), dict):
            graph.add_node("raw", kind="raw", label=f"{raw.get('name')}\nsha256 {str(raw.get('sha256'))[:12]}\n{raw.get('rows')} rows")
            graph.add_edge("raw", name)
        makers[link.name] = [name]
    requested = "requested"
    graph.add_node(requested, kind="raw" if chain.kind == "raw" else "requested", label=f"{chain.path}\n{chain.hash[:12]}")
    if chain.stages:
        graph.add_edge(f"{chain.stages[0].name} {next(iter(chain.stages[0].outputs.values()), {'hash': ''})['hash']}", requested)
    for use in chain.downstream:
        if use.model or not any(other.model for other in chain.downstream):
            name = f"{use.path} {use.hash} {use.stage}"
            where = ", ".join(use.refs[:2]) or use.revision[:9] or use.time[:10]
            graph.add_node(name, kind="model" if use.model else "used by", label=f"{use.path}\n{use.hash[:12]}\n{where}")
            graph.add_edge(requested, name)
    return graph


def _revision(run: RunFacts) -> str:
    return f"{str(run['revision'])[:9]}{' + edits' if run.get('dirty') else ''}" if run.get("revision") else "dvc.lock alone"

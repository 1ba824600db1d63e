"""gr2 pools: the work pools of a placement, on the Prefect server."""

import argparse
from pathlib import Path

from flows.nodes.pools import ensure
from flows.server.settings import prepare
from tasks.nodes.placement import read_placement
from tasks.project.graph import read_graph


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--placement", required=True, metavar="NAME", help="a file of infra/placements")


def execute(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    placement, graph = read_placement(root, options.placement), read_graph(root)
    placement.check(graph)
    prepare(root)
    for line in ensure(root, placement):
        print(line)
    for name in graph.order:
        pool = placement.pool(graph[name])
        print(f"  {name}: {pool.name if pool else 'here'}")
    return 0

"""gr2 pools: the work pools of a placement, on the Prefect server."""

import argparse
from pathlib import Path

from flows.commands import Commands


def add(commands: Commands) -> None:
    sub = commands.add("pools", pools, "make or renew the work pools, GPU limits and deployments of a placement on the Prefect server")
    sub.add_argument("--placement", required=True, metavar="NAME", help="a file of infra/placements")


def pools(options: argparse.Namespace, here: Path) -> int:
    from tasks.nodes.placement import read_placement
    from tasks.project.graph import read_graph

    root = Path.cwd()
    placement, graph = read_placement(root, options.placement), read_graph(root)
    placement.check(graph)
    from flows.server.settings import prepare

    prepare(root)
    from flows.nodes.pools import ensure

    for line in ensure(root, placement):
        print(line)
    for name in graph.order:
        pool = placement.pool(graph[name])
        print(f"  {name}: {pool.name if pool else 'here'}")
    return 0

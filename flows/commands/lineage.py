"""gr2 lineage: where an output comes from."""

import argparse
import json
import os
from pathlib import Path

from flows.commands import Commands, show
from tasks.graph import read_graph


def add(commands: Commands) -> None:
    sub = commands.add("lineage", lineage, "the chain from an output back to the raw file", json=True)
    sub.add_argument("path", metavar="PATH", help="an output, or a file in an output folder")


def lineage(options: argparse.Namespace, here: Path) -> int:
    from tasks.lineage import chain

    root = Path.cwd()
    graph = read_graph(root)
    given = options.path
    inside = os.path.relpath(here / given, root)
    path = given if graph.producer(given.rstrip("/")) and not graph.producer(inside) else inside
    found = chain(root, graph, path)
    if options.json:
        print(json.dumps(found.to_dict(), indent=2))
        return 0
    from flows.views import lineage_view

    return show(lineage_view(found))

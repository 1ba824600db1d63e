"""Which stages a run is about, and with which parameters: the same options for `gr2 run` and `gr2 plan`."""

import argparse
from pathlib import Path

from tasks.project.graph import Graph, read_graph
from tasks.run.selection import select
from tasks.system.errors import ProjectError


def add_selection_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="only these and what they need (default: all)")
    parser.add_argument("--from", dest="start", metavar="STAGE", help="take what lies before this stage as it is")
    parser.add_argument("--until", action="append", default=[], metavar="STAGE", help="the same as naming STAGE")
    parser.add_argument("--force", action="append", default=[], metavar="STAGE", help="run this stage in any case; repeatable")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="put a value into params.yaml first; repeatable")


def requested_stages(options: argparse.Namespace) -> list[str] | None:
    return [*options.stages, *options.until] or None


def check_selection(root: Path, options: argparse.Namespace, params: str | None = None) -> tuple[Graph, list[str]]:
    """The graph, and the stages that `options` are about. ProjectError for an unknown name, or a forced stage that is not among them.

    `params`: the text that params.yaml is about to have; None: the one it has.
    """
    graph = read_graph(root, params)
    names = select(root, graph, requested_stages(options), options.start)
    for name in options.force:
        if graph[name].name not in names:
            raise ProjectError(f"--force {name}: this run does not come to it (stages: {', '.join(names)})")
    return graph, names

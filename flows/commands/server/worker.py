"""gr2 worker: Prefect's own worker in this checkout, for the runs of its schedules or as a node of a placement."""

import argparse
from pathlib import Path

from flows.nodes.worker import node_worker
from flows.schedules.worker import schedule_worker
from flows.server.settings import prepare_worker
from tasks.nodes.placement import read_placement
from tasks.system.errors import ProjectError
from tasks.system.requirements import check_installed


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pool", nargs="?", metavar="POOL", help="run stages of this pool here, as a node (with --placement)")
    parser.add_argument("--placement", metavar="NAME", help="the file of infra/placements that knows POOL")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="stages at a time on this node (default: as many as come; GPUs are counted besides)"
    )


def execute(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    if bool(options.pool) != bool(options.placement):
        raise ProjectError("a node's worker needs both: gr2 worker POOL --placement NAME; for the schedules of this checkout: gr2 worker")
    check_installed()  # a node that lacks a package would fail each stage that it takes
    prepare_worker(root)
    if options.pool:
        return node_worker(root, read_placement(root, options.placement), options.pool, options.limit)
    return schedule_worker(root)

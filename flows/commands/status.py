"""gr2 status: each stage is current, changed or has never run; its last run."""

import argparse
import json
from pathlib import Path

from flows.commands import add_json_option, show
from flows.render.plan import status_view
from tasks.project.graph import read_graph
from tasks.run.status import project_status


def add_options(parser: argparse.ArgumentParser) -> None:
    add_json_option(parser)


def execute(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    rows = project_status(root, read_graph(root))
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    return show(status_view(rows))

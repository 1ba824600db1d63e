"""gr2 deps: whether the code deps in dvc.yaml cover what the stages import."""

import argparse
from pathlib import Path

from tasks.project.code_deps import dotted, gaps
from tasks.project.graph import read_graph
from tasks.system.errors import ProjectError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--write", action="store_true", help="no longer there: dvc.yaml lists packages, edit it by hand")


def execute(options: argparse.Namespace, cwd: Path) -> int:
    if options.write:
        raise ProjectError("deps --write: dvc.yaml lists packages now and is edited by hand; gr2 deps names what it lacks")
    root = Path.cwd()
    gaps_by_stage = gaps(root, read_graph(root))
    for name, gap in gaps_by_stage.items():
        for package in gap.missing_packages:
            print(f"{name} imports {package}, dvc.yaml does not list it")
        for path in gap.stale:
            print(f"{name} imports nothing of {dotted(path)}, dvc.yaml lists it in vain")
    if gaps_by_stage:
        raise ProjectError(f"dvc.yaml: the code deps of {', '.join(gaps_by_stage)} are not what they import; edit them by hand")
    print("dvc.yaml lists what every stage imports")
    return 0

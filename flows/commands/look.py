"""gr2 plan, status, deps and profiles: how the project stands, running nothing."""

import argparse
import json
from pathlib import Path

from flows.commands import Commands, show
from tasks.errors import ProjectError
from tasks.graph import read_graph


def add(commands: Commands) -> None:
    sub = commands.add("plan", plan, "what would run and why, running nothing", json=True)
    sub.add_argument("stages", nargs="*", metavar="STAGE", help="only these and what they need (default: all)")
    commands.add("status", status, "each stage: current, changed or never run; its last run", json=True)
    sub = commands.add("deps", deps, "compare the code deps in dvc.yaml with what the stages import")
    sub.add_argument("--write", action="store_true", help="put dvc.yaml right")
    commands.add("profiles", profiles, "the parameter profiles")


def plan(options: argparse.Namespace, here: Path) -> int:
    from tasks.plan import make_plan

    root = Path.cwd()
    graph = read_graph(root)
    made = make_plan(root, graph, graph.closure(options.stages))
    if options.json:
        print(json.dumps(made.to_dict(), indent=2))
        return 0
    from flows.views import plan_view

    return show(plan_view(made))


def status(options: argparse.Namespace, here: Path) -> int:
    from tasks.status import project_status

    root = Path.cwd()
    rows = project_status(root, read_graph(root))
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    from flows.views import status_view

    return show(status_view(rows))


def deps(options: argparse.Namespace, here: Path) -> int:
    from tasks.imports import gaps, write_deps

    root = Path.cwd()
    graph = read_graph(root)
    found = write_deps(root, graph) if options.write else gaps(root, graph)
    for name, gap in found.items():
        for path in gap.missing:
            print(f"{name}: {'added' if options.write else 'missing'} {path}")
        for path in gap.stale:
            print(f"{name}: {'removed' if options.write else 'stale'} {path}")
    if found and not options.write:
        raise ProjectError("dvc.yaml does not list what these stages import; put it right with: gr2 deps --write")
    if not found:
        print("dvc.yaml lists what every stage imports")
    return 0


def profiles(options: argparse.Namespace, here: Path) -> int:
    from tasks.profiles import matching, names

    root = Path.cwd()
    now = matching(root)
    for name in names(root):
        print(f"{name} (params.yaml holds it)" if name == now else name)
    if now is None:
        print("params.yaml equals none of them")
    return 0

"""gr2 plan, status, deps and profiles: how the project stands, running nothing."""

import argparse
import json
from pathlib import Path
from typing import Any

from flows.commands import Commands, show
from tasks.project.graph import Graph, holds, read_graph
from tasks.system.errors import ProjectError
from tasks.system.redaction import refuse_secret_params


def add(commands: Commands) -> None:
    add_selection(commands.add("plan", plan, "what would run and why, running nothing", json=True))
    commands.add("status", status, "each stage: current, changed or never run; its last run", json=True)
    sub = commands.add("deps", deps, "compare the code deps in dvc.yaml with what the stages import")
    sub.add_argument("--write", action="store_true", help="put dvc.yaml right")
    commands.add("profiles", profiles, "the parameter profiles")


def add_selection(sub: argparse.ArgumentParser) -> None:
    """Which stages a run is about, and with which parameters: the same for `gr2 run` and `gr2 plan`."""
    sub.add_argument("stages", nargs="*", metavar="STAGE", help="only these and what they need (default: all)")
    sub.add_argument("--from", dest="start", metavar="STAGE", help="take what lies before this stage as it stands")
    sub.add_argument("--until", action="append", default=[], metavar="STAGE", help="the same as naming STAGE")
    sub.add_argument("--force", action="append", default=[], metavar="STAGE", help="run this stage in any case; repeatable")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="put a value into params.yaml first; repeatable")


def wanted(options: argparse.Namespace) -> list[str] | None:
    return [*options.stages, *options.until] or None


def check_selection(root: Path, options: argparse.Namespace) -> tuple[Graph, list[str]]:
    """The graph, and the stages that `options` are about. ProjectError for an unknown name, or a forced stage that is not among them."""
    from tasks.run.selection import select

    graph = read_graph(root)
    names = select(root, graph, wanted(options), options.start)
    for name in options.force:
        if graph[name].name not in names:
            raise ProjectError(f"--force {name}: this run does not come to it (stages: {', '.join(names)})")
    return graph, names


def plan(options: argparse.Namespace, here: Path) -> int:
    root = Path.cwd()
    if not options.set:
        return show_plan(root, options, None, options.json)
    from tasks.project.overrides import overlaid, read_settings, single

    return show_plan(root, options, overlaid(root, single(read_settings(root, options.set)))[0], options.json)


def show_plan(root: Path, options: argparse.Namespace, params: str | None, as_json: bool) -> int:
    """The plan of the run that `options` ask for. `params`: the text that params.yaml would then have, None for the one it has."""
    from tasks.run.plan import make_plan

    refuse_secret_params(root, params)
    graph, names = check_selection(root, options)
    made = make_plan(root, graph, names, options.force, None if params is None else foreseen(root, params))
    if as_json:
        print(json.dumps(made.to_dict(), indent=2))
        return 0
    from flows.render.plan import plan_view

    return show(plan_view(made))


def foreseen(root: Path, params: str) -> dict[str, Any]:
    """`params` parsed; ProjectError where they change a value that dvc.yaml itself is written with, which would be another graph."""
    from tasks.project.dict_diff import differences
    from tasks.project.templates import PARAMS, TEMPLATE
    from tasks.system.yaml_files import parse, read_text

    values: dict[str, Any] = parse(params, PARAMS)
    keys = {match[1].strip() for match in TEMPLATE.finditer(read_text(root / "dvc.yaml", ""))}
    for key, _, _ in differences(parse(read_text(root / PARAMS, ""), PARAMS) if (root / PARAMS).exists() else {}, values):
        if any(holds(key.replace(".", "/"), own.replace(".", "/")) for own in keys):
            raise ProjectError(f"dvc.yaml names {key}, so another value makes another graph; put it into params.yaml first, then: gr2 plan")
    return values


def status(options: argparse.Namespace, here: Path) -> int:
    from tasks.run.status import project_status

    root = Path.cwd()
    rows = project_status(root, read_graph(root))
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    from flows.render.plan import status_view

    return show(status_view(rows))


def deps(options: argparse.Namespace, here: Path) -> int:
    from tasks.project.code_deps import dotted, gaps

    if options.write:
        raise ProjectError("deps --write: dvc.yaml lists packages now and is edited by hand; gr2 deps names what it lacks")
    root = Path.cwd()
    stages = gaps(root, read_graph(root))
    for name, gap in stages.items():
        for package in gap.missing_packages:
            print(f"{name} imports {package}, dvc.yaml does not list it")
        for path in gap.stale:
            print(f"{name} imports nothing of {dotted(path)}, dvc.yaml lists it in vain")
    if stages:
        raise ProjectError(f"dvc.yaml: the code deps of {', '.join(stages)} are not what they import; edit them by hand")
    print("dvc.yaml lists what every stage imports")
    return 0


def profiles(options: argparse.Namespace, here: Path) -> int:
    from tasks.project.profiles import matching, names

    root = Path.cwd()
    now = matching(root)
    for name in names(root):
        print(f"{name} (params.yaml holds it)" if name == now else name)
    if now is None:
        print("params.yaml equals none of them")
    return 0

"""The command line: gr2 run, plan, status, lineage, deps, profiles, power, seeds.

Exit codes: 1 a stage failed or a control showed a gain, 2 a wrong request or project.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from flows.passed_on import POWER_OPTIONS, SEEDS_OPTIONS, power, seeds
from tasks.errors import ProjectError
from tasks.graph import read_graph

STAGE_FAILED, WRONG, INTERRUPTED = 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        here = Path.cwd()
        os.chdir(_project_root(here))
        return int(options.command(options, here))
    except ProjectError as error:
        print(f"gr2: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print("gr2: stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader (head, less) had enough
        return 0


def run(options: argparse.Namespace, here: Path) -> int:
    root = Path.cwd()
    if options.control:
        if options.stages or options.profile or options.discard_edits:
            raise ProjectError("--control runs every stage, on params.yaml as it stands; give it neither stages nor a profile")
        from flows.control import run_control

        return run_control(root, options.control)
    if options.stages:
        read_graph(root).closure(options.stages)  # an unknown name is said before anything is touched
    if options.profile:
        from tasks import profiles

        changes = profiles.apply(root, options.profile, options.discard_edits)
        print(f"profile {options.profile}: " + (f"{len(changes)} changed in params.yaml" if changes else "params.yaml already holds it"))
        for change in changes:
            print(f"  {change}")
    elif options.discard_edits:
        raise ProjectError("--discard-edits needs --profile NAME, the profile to put in place of the edits")
    from flows.environment import prepare, start_server

    before = prepare(root)
    start_server()
    from flows import pipeline

    pipeline.stage_environment = before
    state = pipeline.pipeline(options.stages or None, return_state=True)
    if state.is_completed():
        return 0
    error = state.result(raise_on_failure=False)
    if isinstance(error, ProjectError):
        raise error
    print(f"gr2: {state.message}", file=sys.stderr)
    return INTERRUPTED if state.is_cancelled() else STAGE_FAILED


def plan(options: argparse.Namespace, here: Path) -> int:
    from tasks.plan import make_plan

    root = Path.cwd()
    made = make_plan(root, read_graph(root), options.stages or None)
    if options.json:
        print(json.dumps(made.to_dict(), indent=2))
        return 0
    from flows.views import plan_view

    return _show(plan_view(made))


def status(options: argparse.Namespace, here: Path) -> int:
    from tasks.status import project_status

    root = Path.cwd()
    rows = project_status(root, read_graph(root))
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    from flows.views import status_view

    return _show(status_view(rows))


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

    return _show(lineage_view(found))


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


def _show(view: object) -> int:
    from rich.console import Console

    Console(highlight=False, width=None if sys.stdout.isatty() else 240).print(view)  # a file or pipe has no width to wrap at
    return 0


def _project_root(here: Path) -> Path:
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").exists():
            return folder
    raise ProjectError(f"no dvc.yaml in {here} or above it; run at the root of the project")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gr2", description="Runs the pipeline that dvc.yaml describes, and says what it did and why.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, text: str, *, json: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        if json:
            sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    sub = command("run", run, "run the stages that are not current, with what they need")
    sub.add_argument("stages", nargs="*", metavar="STAGE", help="only these and what they need (default: all)")
    sub.add_argument("--profile", help="first render this profile into params.yaml (gr2 profiles lists them)")
    sub.add_argument("--discard-edits", action="store_true", help="let the profile overwrite edits in params.yaml")
    sub.add_argument(
        "--control", metavar="NAME", help="run this control of infra/controls, in a workspace of its own: it must show no gain"
    )
    sub = command("plan", plan, "what would run and why, running nothing", json=True)
    sub.add_argument("stages", nargs="*", metavar="STAGE", help="only these and what they need (default: all)")
    command("status", status, "each stage: current, changed or never run; its last run", json=True)
    sub = command("lineage", lineage, "the chain from an output back to the raw file", json=True)
    sub.add_argument("path", metavar="PATH", help="an output, or a file in an output folder")
    sub = command("deps", deps, "compare the code deps in dvc.yaml with what the stages import")
    sub.add_argument("--write", action="store_true", help="put dvc.yaml right")
    command("profiles", profiles, "the parameter profiles")
    sub = command("power", power, "how many slates it takes to see a gain, from the outputs of the last evaluation")
    for name, text in POWER_OPTIONS.items():
        sub.add_argument(f"--{name}", required=name == "gain", help=text)
    sub = command("seeds", seeds, "the gains over finished runs of several training seeds", json=True)
    sub.add_argument("folders", nargs="+", metavar="FOLDER", help="a project whose evaluation is done, one for each seed")
    for name, text in SEEDS_OPTIONS.items():
        sub.add_argument(f"--{name}", help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())

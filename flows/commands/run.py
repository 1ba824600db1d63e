"""gr2 run."""

import argparse
import sys
from pathlib import Path

from flows.commands import INTERRUPTED, STAGE_FAILED, Commands
from tasks.errors import ProjectError
from tasks.graph import read_graph


def add(commands: Commands) -> None:
    sub = commands.add("run", run, "run the stages that are not current, with what they need")
    sub.add_argument("stages", nargs="*", metavar="STAGE", help="only these and what they need (default: all)")
    sub.add_argument("--profile", help="first render this profile into params.yaml (gr2 profiles lists them)")
    sub.add_argument("--discard-edits", action="store_true", help="let the profile overwrite edits in params.yaml")
    sub.add_argument(
        "--control", metavar="NAME", help="run this control of infra/controls, in a workspace of its own: it must show no gain"
    )


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

"""gr2 run: the stages that are not current, with what they need."""

import argparse
import gc
import sys
from pathlib import Path
from typing import Any

from flows.commands import INTERRUPTED, STAGE_FAILED, add_profile_option
from flows.commands.plan import show_plan
from flows.commands.run_queue import run_queue
from flows.commands.selection import add_selection_options, check_selection, requested_stages
from flows.pipeline.control import run_control
from flows.pipeline.params_check import check_params
from flows.render.verdict import verdict_lines
from flows.server.settings import prepare, start_server
from tasks.domain.report_summary import read_report, reported_by
from tasks.project import overrides, profiles
from tasks.project.missing_deps import check_template_deps
from tasks.project.output_folders import check_output_folders
from tasks.system.errors import ProjectError, fault_of_machine
from tasks.system.git import check_git
from tasks.system.locks import run_lock, shared_lock
from tasks.system.redaction import refuse_secret_params
from tasks.system.requirements import check_installed


def add_options(parser: argparse.ArgumentParser) -> None:
    add_selection_options(parser)
    parser.add_argument("--dry", action="store_true", help="the plan of exactly this run, running and changing nothing")
    add_profile_option(parser, "first render this profile into params.yaml")
    parser.add_argument("--discard-edits", action="store_true", help="let the profile overwrite edits in params.yaml")
    parser.add_argument(
        "--placement", metavar="NAME", help="run stages on nodes, as this file of infra/placements says (default: all here)"
    )
    parser.add_argument(
        "--queue", action="store_true", help="run as DVC experiments: one for each combination of the values given with --set"
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="with --queue: experiments at a time (default: 1)")
    parser.add_argument("--no-start", action="store_true", help="with --queue: leave them queued (gr2 run --queue starts what is queued)")
    parser.add_argument("--control", metavar="NAME", help="run this control of infra/controls, in its own workspace: it must show no gain")


def execute(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    check_git()
    _check(options)
    if options.control:
        return run_control(root, options.control)
    if options.queue:
        return run_queue(root, options)
    params = overrides.planned(root, options.profile or [], options.set or [])
    refuse_secret_params(root, params)
    graph, names = check_selection(root, options, params)  # what is wrong is an error before anything is touched
    check_params(root, [params])
    check_template_deps(root, graph, names)
    check_output_folders(root, graph, names)
    if options.dry:
        return show_plan(root, options, params, as_json=False)
    with run_lock(root, wait=True), shared_lock(root):
        _put_params(root, options)
        return _run_pipeline(root, options)


def _check(options: argparse.Namespace) -> None:
    """Options that contradict each other, and an installation that cannot run stages."""
    selected = options.stages or options.until or options.start or options.force
    if options.control and (selected or options.profile or options.discard_edits or options.set or options.queue or options.dry):
        raise ProjectError("--control runs every stage, on params.yaml as it is; give it neither stages nor a profile")
    if options.discard_edits and not options.profile:
        raise ProjectError("--discard-edits needs --profile NAME, the profile to put in place of the edits")
    if options.placement and (options.control or options.queue):
        raise ProjectError("--placement is for a run of this workspace; controls and experiments run here")
    if options.queue and (options.profile or options.start or options.force or options.dry):
        raise ProjectError("--queue takes stages, --until and --set; an experiment runs whatever its parameters change")
    if not options.queue and (options.jobs is not None or options.no_start):
        raise ProjectError("--jobs and --no-start go with --queue")
    if options.jobs is not None and options.jobs < 1:
        raise ProjectError(f"--jobs {options.jobs}: one or more")
    if not options.dry:
        check_installed()  # else the first stage that imports what is missing would fail, maybe hours from now


def _put_params(root: Path, options: argparse.Namespace) -> None:
    if options.profile:
        text = overrides.planned(root, options.profile, options.set)
        changes = profiles.apply(root, *options.profile, discard_edits=options.discard_edits, text=text)
        outcome = f"{len(changes)} changed in params.yaml" if changes else "params.yaml already holds it"
        print(f"profile {profiles.title(options.profile)}{' and --set' * bool(options.set)}: {outcome}")
    elif options.set:
        changes = overrides.write(root, overrides.single(overrides.read_settings(root, options.set)))
        print("set: " + (f"{len(changes)} changed in params.yaml" if changes else "params.yaml already holds it"))
    else:
        return
    for change in changes:
        print(f"  {change}")


def _run_pipeline(root: Path, options: argparse.Namespace) -> int:
    environment = prepare(root)
    server = start_server(root)
    gc.disable()  # as in flows/cli.py
    from flows.pipeline import flow  # imports Prefect, which reads its settings then; meanwhile the server starts

    gc.freeze()
    gc.enable()
    if server:
        server.wait_until_ready()
    flow.stage_environment = environment
    state = _final_state(flow, options)
    if state.is_completed():
        _print_verdict(root, options)
        return 0
    error = state.result(raise_on_failure=False)
    if isinstance(error, ProjectError) or (isinstance(error, Exception) and fault_of_machine(error)):
        raise error
    print(f"gr2: {state.message}", file=sys.stderr)
    return INTERRUPTED if state.is_cancelled() else STAGE_FAILED


def _print_verdict(root: Path, options: argparse.Namespace) -> None:
    """Where this run came to the report: what that says."""
    graph, names = check_selection(root, options)
    report = read_report(root) if reported_by(graph) in names else None
    if report:
        print("", *verdict_lines(report, options.profile or []), sep="\n")


def _final_state(flow: Any, options: argparse.Namespace) -> Any:
    """The Prefect state in which the run ended. The flow's own word counts where Prefect's server went away before it was told."""
    try:
        state = flow.pipeline(requested_stages(options), options.start, options.force or None, options.placement, return_state=True)
        if not state.is_crashed() or flow.ended is None:
            return state
    except Exception:  # of Prefect's client, each in its own way
        if flow.ended is None:
            raise
    print("gr2: Prefect's server went away; the run came to its end without it, and is on record", file=sys.stderr)
    return flow.ended

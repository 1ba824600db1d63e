"""gr2 plan: what would run and why, running nothing."""

import argparse
import json
from pathlib import Path

from flows.commands import add_json_option, add_profile_option, show
from flows.commands.selection import add_selection_options, check_selection
from flows.pipeline.params_check import check_code_deps
from flows.render.plan import plan_view
from tasks.project.missing_deps import check_template_deps
from tasks.project.overrides import planned
from tasks.project.params_check import check_sections
from tasks.project.templates import PARAMS
from tasks.run.plan import make_plan
from tasks.system.redaction import refuse_secret_params
from tasks.system.yaml_files import parse


def add_options(parser: argparse.ArgumentParser) -> None:
    add_json_option(parser)
    add_selection_options(parser)
    add_profile_option(parser, "plan the run that would first render this profile into params.yaml")


def execute(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    params = planned(root, options.profile or [], options.set or [])
    return show_plan(root, options, params, options.json)


def show_plan(root: Path, options: argparse.Namespace, params: str | None, as_json: bool) -> int:
    """The plan of the run that `options` ask for. `params`: the text that params.yaml would then have, None for the one it has."""
    refuse_secret_params(root, params)
    graph, names = check_selection(root, options, params)
    check_sections(root, graph, params)
    check_code_deps(root, graph)
    planned_params = None if params is None else parse(params, PARAMS)
    check_template_deps(root, graph, names)
    plan = make_plan(root, graph, names, options.force, planned_params)
    if as_json:
        print(json.dumps(plan.to_dict(), indent=2))
        return 0
    return show(plan_view(plan))

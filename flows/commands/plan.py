"""gr2 plan: what would run and why, running nothing."""

import argparse
import json
from pathlib import Path
from typing import Any

from flows.commands import add_json_option, show
from flows.commands.selection import add_selection_options, check_selection
from flows.pipeline.params_check import check_code_deps
from flows.render.plan import plan_view
from tasks.project.dict_diff import differences
from tasks.project.graph import holds
from tasks.project.missing_deps import check_template_deps
from tasks.project.overrides import read_settings, single, with_overrides
from tasks.project.params_check import check_sections
from tasks.project.templates import PARAMS, TEMPLATE
from tasks.run.plan import make_plan
from tasks.system.errors import ProjectError
from tasks.system.redaction import refuse_secret_params
from tasks.system.yaml_files import parse, read_text


def add_options(parser: argparse.ArgumentParser) -> None:
    add_json_option(parser)
    add_selection_options(parser)


def execute(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    params = with_overrides(root, single(read_settings(root, options.set)))[0] if options.set else None
    return show_plan(root, options, params, options.json)


def show_plan(root: Path, options: argparse.Namespace, params: str | None, as_json: bool) -> int:
    """The plan of the run that `options` ask for. `params`: the text that params.yaml would then have, None for the one it has."""
    refuse_secret_params(root, params)
    graph, names = check_selection(root, options)
    check_sections(root, graph, params)
    check_code_deps(root, graph)
    planned_params = None if params is None else _planned_params(root, params)
    check_template_deps(root, graph, names)
    plan = make_plan(root, graph, names, options.force, planned_params)
    if as_json:
        print(json.dumps(plan.to_dict(), indent=2))
        return 0
    return show(plan_view(plan))


def _planned_params(root: Path, params: str) -> dict[str, Any]:
    """`params` parsed; ProjectError where they change a value that dvc.yaml itself is written with, which would be another graph."""
    values: dict[str, Any] = parse(params, PARAMS)
    template_keys = {match[1].strip() for match in TEMPLATE.finditer(read_text(root / "dvc.yaml", ""))}
    for key, _, _ in differences(parse(read_text(root / PARAMS, ""), PARAMS) if (root / PARAMS).exists() else {}, values):
        if any(holds(key.replace(".", "/"), template_key.replace(".", "/")) for template_key in template_keys):
            raise ProjectError(f"dvc.yaml names {key}, so another value makes another graph; put it into params.yaml first, then: gr2 plan")
    return values

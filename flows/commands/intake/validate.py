"""gr2 validate: a data set against what the stages need; stages/tools/validate.py reads and checks it."""

import argparse
import tempfile
from pathlib import Path

from flows.commands import add_json_option, add_profile_option, run_tool
from flows.pipeline.params_check import check_params
from tasks.project.overrides import PARAMS, planned


def add_options(parser: argparse.ArgumentParser) -> None:
    add_json_option(parser)
    add_profile_option(parser, "check against this profile instead of params.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a value of params.yaml, as for gr2 run; repeatable"
    )


def execute(options: argparse.Namespace, cwd: Path) -> int:
    """Exit code 1 where a stage would fail on these data."""
    root = Path.cwd()
    params = planned(root, options.profile, options.set)
    check_params(root, [params])
    with tempfile.TemporaryDirectory() as folder:
        path = root / PARAMS
        if params is not None:
            path = Path(folder) / PARAMS
            path.write_text(params, encoding="utf-8")
        return run_tool("validate", str(path), *(["--json"] if options.json else []))

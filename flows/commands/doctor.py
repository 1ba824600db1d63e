"""gr2 doctor: what a run needs of memory, models, disk and engines, and what of it is missing here."""

import argparse
import tempfile
from pathlib import Path

from flows.commands import add_json_option, add_profile_option, run_tool
from flows.pipeline.params_check import check_params
from tasks.project.overrides import PARAMS
from tasks.project.profiles import render


def add_options(parser: argparse.ArgumentParser) -> None:
    add_json_option(parser)
    add_profile_option(parser, "look at this profile instead of params.yaml")
    parser.add_argument("--gpu-gb", type=float, metavar="GB", help="memory of one GPU (default: of those here, else 80)")


def execute(options: argparse.Namespace, cwd: Path) -> int:
    """Exit code 1 where something is missing or does not fit."""
    root = Path.cwd()
    params = render(root, *options.profile) if options.profile else None
    check_params(root, [params])
    flags = [*(["--json"] if options.json else []), *([f"--gpu-gb={options.gpu_gb}"] if options.gpu_gb else [])]
    if params is None:
        return run_tool("doctor", PARAMS, *flags)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / PARAMS).write_text(params, encoding="utf-8")
        return run_tool("doctor", str(Path(folder) / PARAMS), *flags)

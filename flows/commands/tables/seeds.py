"""gr2 seeds: the gains over finished runs of several training seeds; stages/tools/compare_seeds.py computes them."""

import argparse
import os
from pathlib import Path

from flows.commands import add_json_option, as_flags, run_tool

# Passed on as they are: the tool knows their types and defaults.
OPTIONS = {
    "metric": "the metric compared (default: ndcg@5)",
    "against": "the model or baseline each is paired with (default: incoming)",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    add_json_option(parser)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="a project whose evaluation is done, one for each seed")
    for name, text in OPTIONS.items():
        parser.add_argument(f"--{name}", help=text)


def execute(options: argparse.Namespace, cwd: Path) -> int:
    flags = [*as_flags(options, OPTIONS), *(["--json"] if options.json else [])]
    return run_tool("compare_seeds", *flags, "--", *(os.path.relpath(cwd / folder) for folder in options.folders))

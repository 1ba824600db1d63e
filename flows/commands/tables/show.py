"""gr2 show: prompts and completions that a stage kept; stages/tools/show.py reads them."""

import argparse
from pathlib import Path

from flows.commands import add_json_option, as_flags, run_tool

# Passed on as they are: the tool knows their types and defaults.
OPTIONS = {
    "row": "the row with this number",
    "slate": "the rows of the slate with this id",
    "model": "only of this model (sft, rl, ...)",
    "kind": "only of this kind (greedy, 'attempt 2', ...)",
    "limit": "rows at most (default: 20 in the list, 1 with whole texts)",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stage", help="traces or evaluate, run with its keep_invocations: true")
    for name, text in OPTIONS.items():
        parser.add_argument(f"--{name}", help=text)
    add_json_option(parser)


def execute(options: argparse.Namespace, cwd: Path) -> int:
    return run_tool("show", options.stage, *as_flags(options, OPTIONS), *(["--json"] if options.json else []))

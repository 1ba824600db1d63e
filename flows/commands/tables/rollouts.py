"""gr2 rollouts: what the policy answered while it learnt, and what that earned; stages/tools/rollouts.py reads them."""

import argparse
from pathlib import Path

from flows.commands import add_json_option, as_flags, run_tool

# Passed on as they are: the tool knows their types and defaults.
OPTIONS = {
    "row": "the answer with this number, whole",
    "step": "only of this step, from 1",
    "slate": "only of the slate with this id",
    "fault": "only with this fault (unfinished, malformed, outside, duplicate, missing, contradicts), or valid",
    "limit": "answers at most (default: 20 in the list, 1 with whole texts)",
}
FLAGS = {"best": "of the highest reward first", "worst": "of the lowest reward first", "full": "prompt and completion whole"}


def add_options(parser: argparse.ArgumentParser) -> None:
    for name, text in OPTIONS.items():
        parser.add_argument(f"--{name}", help=text)
    for name, text in FLAGS.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    add_json_option(parser)


def execute(options: argparse.Namespace, cwd: Path) -> int:
    flags = [f"--{name}" for name in (*FLAGS, "json") if getattr(options, name)]
    return run_tool("rollouts", *as_flags(options, OPTIONS), *flags)

"""gr2 power: how many slates it takes to see a gain; stages/tools/power.py computes it."""

import argparse
from pathlib import Path

from flows.commands import as_flags, run_tool

# Passed on as they are: the tool knows their types and defaults.
OPTIONS = {
    "gain": "the true gain that should be seen, as 0.01",
    "metric": "the metric of the gain (default: ndcg@5)",
    "model": "the model whose gain it is (default: rl)",
    "against": "the model or baseline it is paired with (default: incoming)",
    "power": "chance to see it (default: 0.8)",
    "alpha": "level of the two-sided test (default: 0.05)",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    for name, text in OPTIONS.items():
        parser.add_argument(f"--{name}", required=name == "gain", help=text)


def execute(options: argparse.Namespace, cwd: Path) -> int:
    return run_tool("power", *as_flags(options, OPTIONS))

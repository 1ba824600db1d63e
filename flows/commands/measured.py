"""gr2 power and gr2 seeds, which modules of the stage evaluate carry out."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from flows.commands import Commands

# Passed on as they stand: stages/tools/power.py knows their types and defaults.
POWER_OPTIONS = {
    "gain": "the true gain that should be seen, as 0.01",
    "metric": "the metric of the gain (default: ndcg@5)",
    "model": "the model whose gain it is (default: rl)",
    "against": "the model or comparator it is paired with (default: incoming)",
    "power": "chance to see it (default: 0.8)",
    "alpha": "level of the two-sided test (default: 0.05)",
}
# Likewise, of stages/tools/compare_seeds.py.
SEEDS_OPTIONS = {
    "metric": "the metric compared (default: ndcg@5)",
    "against": "the model or comparator each is paired with (default: incoming)",
}


def add(commands: Commands) -> None:
    sub = commands.add("power", power, "how many slates it takes to see a gain, from the outputs of the last evaluation")
    for name, text in POWER_OPTIONS.items():
        sub.add_argument(f"--{name}", required=name == "gain", help=text)
    sub = commands.add("seeds", seeds, "the gains over finished runs of several training seeds", json=True)
    sub.add_argument("folders", nargs="+", metavar="FOLDER", help="a project whose evaluation is done, one for each seed")
    for name, text in SEEDS_OPTIONS.items():
        sub.add_argument(f"--{name}", help=text)


def power(options: argparse.Namespace, here: Path) -> int:
    return _module("power", _given(options, POWER_OPTIONS))


def seeds(options: argparse.Namespace, here: Path) -> int:
    words = [*_given(options, SEEDS_OPTIONS), *(["--json"] if options.json else [])]
    return _module("over_runs", [*words, "--", *(os.path.relpath(here / folder) for folder in options.folders)])


def _given(options: argparse.Namespace, names: dict[str, str]) -> list[str]:
    return [f"--{name}={getattr(options, name)}" for name in names if getattr(options, name) is not None]


def _module(name: str, words: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", f"stages.evaluate.{name}", *words], check=False).returncode

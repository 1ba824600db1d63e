"""gr2 profiles: the parameter profiles, and which of them params.yaml holds."""

import argparse
from pathlib import Path

from tasks.project.profiles import matching_profile, profile_names


def add_options(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def execute(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    current = matching_profile(root)
    for name in profile_names(root):
        print(f"{name} (params.yaml holds it)" if name == current else name)
    if current is None:
        print("params.yaml equals none of them")
    return 0

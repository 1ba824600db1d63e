"""gr2 profiles: the parameter profiles, and which of them, or which combination, params.yaml holds."""

import argparse
from pathlib import Path

from tasks.project.profiles import matching_profiles, profile_names, title


def add_options(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def execute(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    current = matching_profiles(root)
    for name in profile_names(root):
        print(f"{name} (params.yaml holds it)" if [name] == current else name)
    if len(current) > 1:
        print(f"params.yaml holds {title(current)}")
    elif not current:
        print("params.yaml equals none of them, nor a combination")
    return 0

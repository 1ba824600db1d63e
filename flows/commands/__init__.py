"""The commands of gr2, a module each kind; every module adds its own to the command line."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = Callable[[argparse.Namespace, Path], int]  # (options, the folder the person stands in) -> exit code

STAGE_FAILED, WRONG, INTERRUPTED = 1, 2, 130


class Commands:
    """What `gr2` knows. The commands run with the root of the project as current directory."""

    def __init__(self, parsers: Any):
        self.parsers = parsers

    def add(self, name: str, command: Command, text: str, *, json: bool = False) -> argparse.ArgumentParser:
        """A command `gr2 NAME`; with `json` it has a flag --json."""
        sub: argparse.ArgumentParser = self.parsers.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        if json:
            sub.add_argument("--json", action="store_true", help="print JSON")
        return sub


def show(view: object) -> int:
    """Prints a Rich renderable; returns exit code 0."""
    from rich.console import Console

    Console(highlight=False, width=None if sys.stdout.isatty() else 240).print(view)  # a file or pipe has no width to wrap at
    return 0

"""The commands of gr2, one per module: `add_options` declares the options of its parser, `execute` runs it and returns the exit code.

`flows.cli` has the table of them and imports only the chosen one. Commands run with the root of the project as current directory;
`cwd` is the directory in which gr2 was called, from which relative paths in the options are resolved.
"""

import argparse
import os
import subprocess
import sys
from typing import NoReturn

STAGE_FAILED, WRONG, INTERRUPTED = 1, 2, 130


def add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_profile_option(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="NAME",
        help=f"{what}; repeatable: a later one is laid over the earlier (gr2 profiles)",
    )


def show(view: object) -> int:
    """Prints a Rich renderable; returns exit code 0."""
    from rich.console import Console  # `gr2 --help` needs none of it

    Console(highlight=False, width=None if sys.stdout.isatty() else 240).print(view)  # a file or pipe has no width to wrap at
    return 0


def run_tool(name: str, *arguments: str, package: str = "stages.tools") -> int:
    """Runs the module `name` of `package`, which flows may not import; its exit code."""
    return subprocess.run([sys.executable, "-m", f"{package}.{name}", *arguments], check=False).returncode


def become_tool(name: str, *arguments: str, package: str) -> NoReturn:
    """As run_tool, in the place of this process: signals sent to it are the tool's."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", f"{package}.{name}", *arguments])


def as_flags(options: argparse.Namespace, names: dict[str, str]) -> list[str]:
    """The options among `names` (name -> help text) that have a value, as command-line arguments."""
    return [f"--{name}={getattr(options, name)}" for name in names if getattr(options, name) is not None]

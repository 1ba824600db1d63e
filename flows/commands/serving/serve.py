"""gr2 serve: the model of a finished run behind HTTP, in the shape that rerank clients know; stages/serve/http/server.py is it."""

import argparse
import os
from pathlib import Path
from typing import NoReturn

from flows.commands import as_flags, become_tool
from flows.commands.serving import add_mode_options, mode_flags

VERSIONS = "tasks.promotion.versions_to_serve"  # the server may not import it
# Passed on as they are: the module knows their types and defaults.
OPTIONS = {
    "host": "address to listen at (default 127.0.0.1: this machine alone)",
    "port": "port (default 8081; 0: any free one)",
    "budget": "seconds a request may take; after that its incoming order comes back (default 30)",
    "queue": "requests that may wait; the next one is answered 429 (default 64)",
    "batch": "requests that are ranked together at most (default 32)",
    "items": "items of a request at most; one with more is answered 400 (default 1000)",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="FOLDER|VERSION",
        help="a folder (default: data/rl/model), or a version of gr2 promote: reranker@v0.0.2, or reranker for the one in use",
    )
    add_mode_options(parser)
    for name, text in OPTIONS.items():
        parser.add_argument(f"--{name}", help=text)


def execute(options: argparse.Namespace, cwd: Path) -> NoReturn:
    # What is no folder is a version, whose name no path is made of.
    name = options.model and (os.path.relpath(cwd / options.model) if _is_path(cwd, options.model) else options.model)
    model = [f"--model={name}"] if name else []
    flags = [*model, f"--versions={VERSIONS}", *mode_flags(options, cwd), *as_flags(options, OPTIONS)]
    become_tool("http.server", *flags, package="stages.serve")


def _is_path(cwd: Path, name: str) -> bool:
    return (cwd / name).is_dir() or os.sep in name

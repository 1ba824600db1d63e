"""gr2 serve: the model of a finished run behind HTTP, in the shape that rerank clients know; stages/serve/http/server.py is it."""

import argparse
import os
from pathlib import Path
from typing import NoReturn

from flows.commands import as_flags, become_tool

VERSIONS = "tasks.promotion.versions_to_serve"  # the server may not import it
# Passed on as they are: the module knows their types and defaults.
OPTIONS = {
    "host": "address to listen at (default 127.0.0.1: this machine alone)",
    "port": "port (default 8081; 0: any free one)",
    "mode": "reasoning (default), one-pass: the likeliest first candidates, without a text; or adaptive: reasoning where those are unsure",
    "margin": "of mode adaptive: the best candidate's probability less the next one's, from which on it does not reason (default 0.1)",
    "budget": "seconds a request may take; after that its incoming order comes back (default 30)",
    "queue": "requests that may wait; the next one is answered 429 (default 64)",
    "batch": "requests that are ranked together at most (default 32)",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="FOLDER|VERSION",
        help="a folder (default: data/rl/model), or a version of gr2 promote: reranker@v0.0.2, or reranker for the one in use",
    )
    parser.add_argument("--one-pass-model", metavar="FOLDER", help="of mode adaptive: the model that is asked first (default: the same)")
    for name, text in OPTIONS.items():
        parser.add_argument(f"--{name}", help=text)


def execute(options: argparse.Namespace, cwd: Path) -> NoReturn:
    # What is no folder is a version, whose name no path is made of.
    name = options.model and (os.path.relpath(cwd / options.model) if _is_path(cwd, options.model) else options.model)
    model = [f"--model={name}"] if name else []
    first = [f"--one-pass-model={os.path.relpath(cwd / options.one_pass_model)}"] if options.one_pass_model else []
    become_tool("http.server", *model, *first, f"--versions={VERSIONS}", *as_flags(options, OPTIONS), package="stages.serve")


def _is_path(cwd: Path, name: str) -> bool:
    return (cwd / name).is_dir() or os.sep in name

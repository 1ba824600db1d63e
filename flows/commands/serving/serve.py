"""gr2 serve: the model of a finished run behind HTTP, in the shape that rerank clients know; stages/serve/http/server.py is it."""

import argparse
import os
from pathlib import Path

from flows.commands import as_flags, run_tool

# Passed on as they are: the module knows their types and defaults.
OPTIONS = {
    "host": "address to listen at (default 127.0.0.1: this machine alone)",
    "port": "port (default 8081; 0: any free one)",
    "mode": "reasoning (default), or one-pass: no text, the likeliest first candidates in one pass of the model",
    "budget": "seconds a request may take; after that its incoming order comes back (default 30)",
    "queue": "requests that may wait; the next one is answered 429 (default 64)",
    "batch": "requests that are ranked together at most (default 32)",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="the model's folder (default: data/rl/model)")
    for name, text in OPTIONS.items():
        parser.add_argument(f"--{name}", help=text)


def execute(options: argparse.Namespace, cwd: Path) -> int:
    model = [f"--model={os.path.relpath(cwd / options.model)}"] if options.model else []
    return run_tool("http.server", *model, *as_flags(options, OPTIONS), package="stages.serve")

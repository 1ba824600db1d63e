"""gr2 export: one-pass mode for programs that know nothing of this project; stages/serve/export.py does it."""

import argparse
import os
from pathlib import Path

from flows.commands import as_flags, run_tool

PATHS = {
    "model": "the model's folder (default: data/rl/model); use one that learnt to answer at once",
    "output": "of prompts: JSONL (default: the file's name with .prompts.jsonl)",
    "topics": "of prompts of a TREC run, as in gr2 rerank",
}
OPTIONS = {"ids": "of prompts: what items are called, as in gr2 rerank: source (default) or number"}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind",
        choices=("cross-encoder", "prompts"),
        help="cross-encoder: the model as a folder that sentence-transformers loads; prompts: what it reads of each request of a file",
    )
    parser.add_argument("path", metavar="FOLDER|FILE", help="of cross-encoder: the new folder; of prompts: a file as gr2 rerank reads it")
    for name, text in {**PATHS, **OPTIONS}.items():
        parser.add_argument(f"--{name}", help=text)


def execute(options: argparse.Namespace, cwd: Path) -> int:
    paths = [f"--{name}={os.path.relpath(cwd / path)}" for name in PATHS if (path := getattr(options, name))]
    flags = [*paths, *as_flags(options, OPTIONS)]
    return run_tool("export", *flags, "--", options.kind, os.path.relpath(cwd / options.path), package="stages.serve")

"""gr2 rerank: a file of histories and candidates in, a file of orders out; stages/serve/rerank.py does it."""

import argparse
import os
from pathlib import Path

from flows.commands import as_flags, run_tool
from flows.commands.serving import add_mode_options, mode_flags

# Passed on as they are: the module knows their types and defaults.
OPTIONS = {
    "ids": "what items are called: source, the data's own ids (default), or number, the pipeline's item numbers, as in slates.parquet",
    "batch": "rows between two entries in the partial output (default 512)",
}
PATHS = {
    "output": "the answers, ending in .jsonl, .parquet, .trec or .rank_llm.jsonl (default: FILE's name with .reranked.jsonl)",
    "topics": "of a TREC run: qid, a tab and the query a line; without it, a qid is the id of a user",
    "model": "the model's folder (default: data/rl/model)",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", help=".jsonl or .parquet: history or user_id, candidates, perhaps scores and id; rank_llm's requests; .trec"
    )
    for name, text in {**PATHS, **OPTIONS}.items():
        parser.add_argument(f"--{name}", help=text)
    add_mode_options(parser)


def execute(options: argparse.Namespace, cwd: Path) -> int:
    paths = [f"--{name}={os.path.relpath(cwd / path)}" for name in PATHS if (path := getattr(options, name))]
    flags = [*paths, *mode_flags(options, cwd), *as_flags(options, OPTIONS)]
    return run_tool("rerank", *flags, "--", os.path.relpath(cwd / options.file), package="stages.serve")

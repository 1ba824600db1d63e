"""gr2 lineage: what a file or output was made from and what was made from it, the differences of two of them, and a check of all hashes."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from flows.commands import STAGE_FAILED, add_json_option, show
from flows.render.lineage import diff_view, lineage_view, users_view, verdict_view
from tasks.lineage.diff import compare
from tasks.lineage.index import Index
from tasks.lineage.query import chain, retrain, users
from tasks.lineage.resolve import find
from tasks.lineage.verify import verify
from tasks.project.graph import read_graph
from tasks.system.errors import ProjectError


def add_options(parser: argparse.ArgumentParser) -> None:
    add_json_option(parser)
    help_x = "a path; a hash or its first digits; a git revision, or REVISION:PATH; a raw file's name; a copied model folder"
    parser.add_argument("what", metavar="X", nargs="?", help=help_x)
    parser.add_argument("--picture", metavar="FILE", help="draw it: a .svg or .png")
    parser.add_argument("--diff", metavar=("A", "B"), nargs=2, help="what differs between two of them, and only that")
    parser.add_argument(
        "--verify", action="store_true", help="recompute every hash; exit code 1 when something was changed, lost or forged"
    )
    parser.add_argument("--who-used", metavar="RAW", help="the models to train again: made from this raw file or data set")


def execute(options: argparse.Namespace, cwd: Path) -> int:
    requests = {"X": options.what, "--diff": options.diff, "--verify": options.verify, "--who-used": options.who_used}
    chosen = [name for name, value in requests.items() if value]
    if len(chosen) != 1:
        raise ProjectError(f"one of X, --diff A B, --verify and --who-used RAW is expected (got {' and '.join(chosen) or 'none'})")
    if options.picture and chosen != ["X"]:
        raise ProjectError(f"--picture draws the lineage of one X; it does not go with {chosen[0]}")
    return {"X": _chain, "--diff": _diff, "--verify": _verify, "--who-used": _who_used}[chosen[0]](options, cwd)


def _chain(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    lineage_chain = chain(root, read_graph(root), options.what, cwd)
    if options.picture:
        from flows.render.lineage_graph import draw  # imports matplotlib, which takes a second

        draw(lineage_chain, cwd / options.picture)
        print(f"{options.picture} drawn", file=sys.stderr)
    if options.json:
        return _print(lineage_chain.to_dict())
    if options.picture:
        return 0
    return show(lineage_view(lineage_chain))


def _diff(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    a, b = options.diff
    rows = compare(Index(root), read_graph(root), a, b, cwd)
    if options.json:
        return _print({"a": a, "b": b, "differences": [row.to_dict() for row in rows]})
    return show(diff_view(a, b, rows))


def _who_used(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    index = Index(root)
    models = retrain(users(index, find(index, read_graph(root), options.who_used, cwd)))
    if options.json:
        return _print({"data": options.who_used, "models": [asdict(model) for model in models]})
    return show(users_view(options.who_used, models))


def _verify(options: argparse.Namespace, cwd: Path) -> int:
    verdict = verify(Path.cwd())
    if options.json:
        _print(verdict.to_dict())
    else:
        show(verdict_view(verdict))
    return STAGE_FAILED if verdict.problems else 0


def _print(document: Mapping[str, object]) -> int:
    """As JSON; returns exit code 0."""
    print(json.dumps(document, indent=2))
    return 0

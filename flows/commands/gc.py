"""gr2 gc: removes from DVC's cache what no tag, branch, experiment, promotion or workspace needs."""

import argparse
import sys
from pathlib import Path

from flows.commands import show
from flows.render.gc import gc_view
from tasks.maintenance.gc import collect_garbage
from tasks.system.errors import ProjectError
from tasks.system.locks import exclusive_lock

LISTED = 20  # unneeded objects shown one by one


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry", action="store_true", help="only say what would go, and what keeps the rest")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--remote", action="store_true", help="clean the default remote, too")


def execute(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    with exclusive_lock(root, "gr2 gc"):
        reports = collect_garbage(root, delete=False, remote=options.remote)
        show(gc_view(reports, LISTED))
        if options.dry or not any(report.unneeded for report in reports):
            return 0
        if not options.yes and not _confirmed():
            print("nothing was removed")
            return 0
        collect_garbage(root, delete=True, remote=options.remote)
    print("removed")
    return 0


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise ProjectError("gc: say --yes to remove these, or --dry to look only (there is no terminal to ask at)")
    return input("Remove them for good? [y/N] ").strip().lower() in ("y", "yes")

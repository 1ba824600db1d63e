"""The command line, gr2; its commands stand in flows/commands.

Exit codes: 1 a stage failed or a control showed a gain, 2 a wrong request or project, 130 stopped.
"""

import argparse
import os
import sys
from pathlib import Path

from flows.commands import INTERRUPTED, WRONG, Commands, experiments, forget, lineage, look, measured, pools, run, schedule, worker
from tasks.system.errors import ProjectError

GROUPS = (run, look, lineage, measured, pools, forget, schedule, worker, experiments)


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        here = Path.cwd()
        os.chdir(_project_root(here))
        return int(options.command(options, here))
    except ProjectError as error:
        print(f"gr2: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print("gr2: stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader (head, less) had enough
        return 0


def _project_root(here: Path) -> Path:
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").exists():
            return folder
    raise ProjectError(f"no dvc.yaml in {here} or above it; run at the root of the project")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gr2", description="Runs the pipeline that dvc.yaml describes, and says what it did and why.")
    commands = Commands(parser.add_subparsers(required=True, metavar="COMMAND"))
    for group in GROUPS:
        group.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())

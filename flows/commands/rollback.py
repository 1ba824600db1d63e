"""gr2 rollback: the version before is in use again, in the tags and in the workspace."""

import argparse
from pathlib import Path

from flows.commands import STAGE_FAILED, add_json_option
from flows.commands.promote import report_decision
from tasks.promotion.record import ROLLED_BACK, who
from tasks.promotion.rollback import rollback


def add_options(parser: argparse.ArgumentParser) -> None:
    add_json_option(parser)
    parser.add_argument("version", nargs="?", metavar="VERSION", help="as in v0.0.2 (default: what the version in use took the place of)")
    parser.add_argument("--artifact", help="of the artifacts in dvc.yaml (default: promote.artifact of params.yaml)")
    parser.add_argument("--tags-only", action="store_true", help="leave the files of this checkout as they are")


def execute(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    record = rollback(root, options.version, who(root), options.artifact, workspace=not options.tags_only)
    return report_decision(root, record, options.json, 0 if record.decision == ROLLED_BACK else STAGE_FAILED)

"""gr2 promote: tags HEAD and its outputs as promoted/NAME, which gr2 gc then keeps."""

import argparse
import json
from pathlib import Path

from flows.commands import add_json_option
from tasks.maintenance import promotions
from tasks.system.errors import ProjectError


def add_options(parser: argparse.ArgumentParser) -> None:
    add_json_option(parser)
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("--message", help="the message of the tag")


def execute(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    if options.name:
        promotion = promotions.promote(root, options.name, options.message)
        sentence = f"promoted/{promotion.name} is {promotion.commit[:10]}; gr2 gc keeps what it needs"
        print(json.dumps(promotion.to_dict(), indent=2) if options.json else sentence)
        return 0
    if options.message:
        raise ProjectError("promote: --message needs NAME")
    recorded = promotions.promotions(root)
    if options.json:
        print(json.dumps([promotion.to_dict() for promotion in recorded], indent=2))
        return 0
    for promotion in recorded:
        print(f"{promotion.name}  {promotion.commit[:10]}  {promotion.time[:19]}  {promotion.message}")
    if not recorded:
        print("no promotions; make one with: gr2 promote NAME")
    return 0

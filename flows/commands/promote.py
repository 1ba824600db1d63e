"""gr2 promote: decides whether a run takes the place of the version in use; --list shows versions and decisions, --keep names a run."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from flows.commands import STAGE_FAILED, add_json_option
from flows.render.promotion import write_page
from tasks.maintenance import promotions
from tasks.promotion.decide import has_artifacts, promote, read_artifact
from tasks.promotion.record import PROMOTED, DecisionRecord, read_decisions, who, write_decision
from tasks.promotion.registry import Registry, read_registry
from tasks.system.errors import ProjectError


def add_options(parser: argparse.ArgumentParser) -> None:
    add_json_option(parser)
    parser.add_argument("candidate", nargs="?", metavar="CANDIDATE", help="a commit, branch, tag or experiment (default: HEAD)")
    parser.add_argument("--artifact", help="what is promoted, of the artifacts in dvc.yaml (default: promote.artifact of params.yaml)")
    parser.add_argument(
        "--against-initial",
        action="store_true",
        help="after new data, where the version in use answered other slates: compare with the initial ranking, as a first version",
    )
    parser.add_argument("--list", action="store_true", help="the versions, the decisions so far, and what --keep has named")
    parser.add_argument("--keep", metavar="NAME", help="decide nothing: tag HEAD as promoted/NAME, so that gr2 gc keeps its outputs")
    parser.add_argument("--message", help="with --keep: the message of the tag")


def execute(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    if options.message and not options.keep:
        raise ProjectError("promote: --message needs --keep NAME")
    if options.keep:
        return _keep(root, options)
    if options.list:
        return _list(root, options)
    record = promote(root, cwd, options.candidate, who(root), options.artifact, options.against_initial)
    return report_decision(root, record, options.json, STAGE_FAILED if record.decision != PROMOTED else 0)


def report_decision(root: Path, record: DecisionRecord, as_json: bool, code: int) -> int:
    """Writes the record and its page, and prints it; returns `code`."""
    path = write_decision(root, record)
    page = write_page(path.with_suffix(".html"), record)
    if as_json:
        print(json.dumps({**asdict(record), "record": str(path.relative_to(root))}, indent=2))
        return code
    print(record.sentence)
    for check in record.checks:
        print(f"  {check['verdict']:13}  {check['name']}: {check['sentence']}")
    if record.tags:
        print(f"tags: {', '.join(record.tags)}; git push --tags tells others, dvc push gives them the bytes")
    print(f"record: {path.relative_to(root)}, {page.relative_to(root)}")
    return code


def _keep(root: Path, options: argparse.Namespace) -> int:
    if options.candidate or options.list:
        raise ProjectError("promote: --keep NAME names HEAD, and decides and lists nothing")
    kept = promotions.promote(root, options.keep, options.message)
    sentence = f"promoted/{kept.name} is {kept.commit[:10]}; gr2 gc keeps what it needs"
    print(json.dumps(kept.to_dict(), indent=2) if options.json else sentence)
    return 0


def _list(root: Path, options: argparse.Namespace) -> int:
    # A project of before has kept runs, and nothing to give versions to.
    registry = read_registry(root, read_artifact(root, options.artifact).name) if has_artifacts(root) else Registry("an artifact")
    decisions, kept = read_decisions(root), promotions.promotions(root)
    champion = registry.champion
    if options.json:
        versions = [{"version": v.name, "commit": v.commit, "in_use": v == champion} for v in registry.versions]
        rows = [{**asdict(record), "record": str(path.relative_to(root))} for path, record in decisions]
        print(json.dumps({"versions": versions, "decisions": rows, "kept": [one.to_dict() for one in kept]}, indent=2))
        return 0
    for version in registry.versions:
        print(f"{registry.artifact}@{version.name}  {version.commit[:10]}{'  in use' if version == champion else ''}")
    if not registry.versions:
        print(f"no version of {registry.artifact} yet; gr2 promote decides about HEAD")
    for _, record in decisions:
        print(f"{record.time[:19]}  {record.sentence}")
    for one in kept:
        print(f"promoted/{one.name}  {one.commit[:10]}  {one.time[:19]}  {one.message}")
    return 0

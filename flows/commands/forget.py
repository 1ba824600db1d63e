"""gr2 forget: what a deletion request touches, the entry that leaves the user out, and whether they are gone."""

import argparse
import json
from pathlib import Path
from typing import Any

from flows.commands import STAGE_FAILED, add_json_option
from tasks.domain.erasure import find_user_data, list_digest, remaining_data
from tasks.project.graph import read_graph

NAMES_SHOWN = 10  # versions listed one by one
Findings = dict[str, Any]  # what tasks.domain.erasure.find_user_data returns, which is also the output of --json


def add_options(parser: argparse.ArgumentParser) -> None:
    add_json_option(parser)
    parser.add_argument("user", metavar="USER", help="the id as it is in the raw file")
    purpose = parser.add_mutually_exclusive_group()
    purpose.add_argument("--apply", action="store_true", help="list the user's digest in params.yaml; the next gr2 run leaves them out")
    purpose.add_argument("--check", action="store_true", help="exit code 0 only when nothing current, cached or copied here holds them")


def execute(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    findings = find_user_data(root, read_graph(root), options.user)
    if options.check:
        reasons = remaining_data(findings)
        print(json.dumps({"clean": not reasons, "against": reasons, **findings}, indent=2) if options.json else _verdict(reasons, findings))
        return STAGE_FAILED if reasons else 0
    if options.apply:
        findings["changed"] = list_digest(root, findings["digest"])
    if options.json:
        print(json.dumps(findings, indent=2))
        return 0
    print("\n".join(_report(findings) if not options.apply else _applied(findings)))
    return 0


def _report(findings: Findings) -> list[str]:
    """The lines of `gr2 forget USER`: what holds the user, then what to do."""
    raw, dense = findings["raw"], findings["dense"]
    raw_log = f"cannot be read: {raw['error']}" if "error" in raw else f"{raw['rows']} rows of theirs in {raw['source']}"
    dense_rows = f"user {dense}, interactions {_counts(findings['interactions'])}; slates {_counts(findings['slates'])}"
    lines = [
        f"raw log       {raw_log}",
        f"data/ingest   {dense_rows if dense is not None else 'not in its table of users' if findings['ingested'] else 'not made yet'}",
        f"digest        {findings['digest']}, {'listed' if findings['listed'] else 'not listed'} in ingest.forget",
    ]
    if findings["quarantine"]:
        lines.append(f"quarantine    {findings['quarantine']} rejected rows name this id (perhaps that of an item)")
    if unknown := dense is None and raw.get("rows", 0) == 0:
        lines.append("              nobody by that id is known here: look at its spelling, or the raw file was cleaned before")
    if not unknown or findings["versions"]:
        lines += ["", "made from data with everyone in it (gr2 run reruns what really changes):"]
        lines += [f"  {name}: {', '.join(outs)}" for name, outs in findings["stages"].items()]
    lines += _older(findings)
    return [*lines, "", *_steps(findings)]


def _older(findings: Findings) -> list[str]:
    """Versions, copies, messages and remotes, as far as the findings name any."""
    lines = ["", "versions with the user's data:"] if findings["versions"] else []
    for version in findings["versions"][:NAMES_SHOWN]:
        name = ", ".join(name.removeprefix("refs/") for name in version["names"]) or "an older commit"
        possession = "holds them" if version["holds"] else "may hold them (its table of users is not in the cache)"
        lines.append(f"  {name}: {possession}; {len(version['cached'])} of its outputs in DVC's cache")
    if len(findings["versions"]) > NAMES_SHOWN:
        lines.append(f"  and {len(findings['versions']) - NAMES_SHOWN} more (--json lists them)")
    for entry in findings["raw_objects"]:
        possession = "may hold rows of theirs" if entry["rows"] is None else f"one of the raw files with {entry['rows']} rows of theirs"
        lines.append(f"  {entry['file']}: {possession}; {entry['object'] or 'only in the workspace'}; a deletion must reach it")
    lines += [f"  copy: {path}" for path in findings["copies"]]
    lines += [f"  {path} may quote a row of theirs, of an ingest that failed" for path in findings["messages"]]
    lines += [f"  the DVC remote {name} may hold what was pushed" for name in findings["remotes"]]
    return lines


def _steps(findings: Findings) -> list[str]:
    # In this order: gc removes only what nothing refers to, so it comes after the rerun and after refs and copies are gone.
    steps = [] if findings["listed"] else ["gr2 forget USER --apply      lists the digest in params.yaml"]
    steps += [
        "gr2 run                      reruns everything behind data/ingest, without them",
        "git commit params.yaml infra/profiles/default.yaml dvc.lock",
    ]
    if findings["raw_objects"]:  # ingest.forget leaves the rows out, but fetch would bring the published file again
        steps.append("copy the raw files, without the user's rows, into a folder; set ingest.folder to it; gr2 run; commit")
    steps += ["remove tags, branches and experiments above (git tag -d, git branch -D, dvc exp remove), there and where they were pushed"]
    steps += [f"rm -r {path.split('/data/')[0]}" for path in findings["copies"]]
    if findings["messages"]:
        steps.append(f"rm -r .gr2/prefect; remove the failed ingest from {', '.join(findings['messages'])}")
    steps.append("gr2 gc                       empties DVC's cache of what nothing refers to")
    steps += ["gr2 gc --remote              and the remote"] if findings["remotes"] else []
    steps += ["gr2 forget USER --check      proves it", "the raw file itself, and models given to others, are yours to clean"]
    return ["what to do:", *(f"  {number}. {step}" for number, step in enumerate(steps, start=1))]


def _applied(findings: Findings) -> list[str]:
    changed = findings["changed"]
    lines = [f"{path}: ingest.forget lists {findings['digest']}" for path in changed] or ["already listed; nothing changed"]
    if findings["dense"] is None and findings["raw"].get("rows", 0) == 0:
        lines.append("nobody by that id is known here: look at its spelling, unless the raw file was cleaned before")
    return [*lines, "next: gr2 run, then gr2 forget USER --check"]


def _verdict(reasons: dict[str, str], findings: Findings) -> str:
    if not reasons:
        note = [f"  the DVC remote {name} was not asked; gr2 gc --remote empties it" for name in findings["remotes"]]
        note += [f"  {path} may quote a row of theirs" for path in findings["messages"]]
        return "\n".join(["gone: no current output, no version in DVC's cache and no copy here holds the user", *note])
    return "\n".join(["not gone:", *(f"  {words}" for words in reasons.values()), *_older(findings)])


def _counts(by_split: dict[str, int]) -> str:
    return f"{sum(by_split.values())} ({', '.join(f'{name} {count}' for name, count in by_split.items())})" if by_split else "0"

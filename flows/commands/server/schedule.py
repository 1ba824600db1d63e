"""gr2 schedule: runs at set times, through a Prefect server that stays and a worker (gr2 worker)."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from flows.commands import add_json_option, add_profile_option, show
from flows.pipeline.params_check import check_params
from flows.schedules import deployments
from flows.server.connection import connected
from flows.server.database import warn_of_sqlite
from flows.server.settings import prepare
from tasks.nodes.placement import read_placement
from tasks.project import profiles
from tasks.run.history import RUNNING, crashed, read_records
from tasks.system.errors import ProjectError
from tasks.system.locks import Busy, run_lock

ACTIONS = ("add", "list", "pause", "resume", "remove", "history")


def add_options(parser: argparse.ArgumentParser) -> None:
    add_json_option(parser)
    parser.add_argument("action", nargs="?", choices=ACTIONS, help="what to do (default: add with --cron, else list)")
    parser.add_argument("schedule", nargs="?", metavar="NAME", help="the schedule to add, pause, resume or remove (add: default)")
    parser.add_argument("--cron", help="when: minute, hour, day, month, weekday, as in '0 3 * * *'")
    parser.add_argument("--timezone", help="in which --cron is meant, as in Europe/Vienna (default: UTC)")
    parser.add_argument("--name", help="the same as NAME")
    parser.add_argument("--on-new-data", action="store_true", help="run only when the raw files have changed since the last ingest")
    add_profile_option(parser, "render this profile into params.yaml before each run")
    parser.add_argument("--placement", metavar="NAME", help="run stages on nodes, as this file of infra/placements says")


def execute(options: argparse.Namespace, cwd: Path) -> int:
    root = Path.cwd()
    action = options.action or ("add" if options.cron else "list")
    if action != "add" and (options.cron or options.timezone or options.on_new_data or options.profile or options.placement):
        raise ProjectError(f"--cron, --timezone, --on-new-data, --profile and --placement belong to add, not to {action}")
    if options.name and options.schedule and options.name != options.schedule:
        raise ProjectError(f"two names are given: {options.schedule} and --name {options.name}")
    name = options.schedule or options.name
    if action == "history":
        return history(root, options.json)
    prepare(root)
    if action == "add":
        return create(root, name or "default", options)
    if action == "list":
        return list_schedules(root, options.json)
    if name is None:
        raise ProjectError(f"which one? gr2 schedule {action} NAME (gr2 schedule list shows them)")
    return change(root, action, name)


def create(root: Path, name: str, options: argparse.Namespace) -> int:
    if not options.cron:
        raise ProjectError("when? gr2 schedule add --cron '0 3 * * *' runs every night at 3")
    graph = check_params(root, [profiles.render(root, *options.profile) if options.profile else None])  # before anything is made
    read_placement(root, options.placement).check(graph)
    with connected("schedules") as client:
        warn_of_sqlite(client)
        parameters = {"on_new_data": options.on_new_data, "profile": options.profile, "placement": options.placement}
        deployments.create(client, root, name, options.cron, options.timezone, parameters)
        first = deployments.first_planned(client, root, name)
    condition = ", when the raw files have changed" if options.on_new_data else ""
    print(f"schedule {name}: {options.cron} ({options.timezone or 'UTC'}){condition}; its runs need a worker here: gr2 worker")
    print(f"first run: {first} UTC" if first else "the server has planned no run of it yet; if `gr2 schedule list` shows none, see its log")
    return 0


def list_schedules(root: Path, as_json: bool) -> int:
    with connected("schedules") as client:
        listing = deployments.schedule_listing(client, root)
    if as_json:
        print(json.dumps(listing, indent=2))
        return 0
    table = Table("name", "cron", "timezone", "only on new data", "profile", "next run (UTC)", "last outcome", box=None, pad_edge=False)
    for row in listing["schedules"]:
        last = f"{row['last']['outcome']} {row['last']['time'][:16]}" if row["last"] else "-"
        due = "paused" if row["paused"] else (row["next"] or "not planned yet")[:16]
        condition = "yes" if row["on_new_data"] else "no"
        profile = profiles.title(row["profile"]) if row["profile"] else "-"
        cells = (row["name"], row["cron"] or "-", row["timezone"] or "-", condition, profile, due, last)
        table.add_row(*map(Text, cells))
    show(table if listing["schedules"] else "no schedules; gr2 schedule --cron '0 3 * * *' makes one")
    if listing["schedules"] and not listing["worker"]:
        print("no worker is running here; start one: gr2 worker")
    return 0


def change(root: Path, action: str, name: str) -> int:
    with connected("schedules") as client:
        deployment = deployments.find(client, root, name).id
        {"pause": client.pause_deployment, "resume": client.resume_deployment, "remove": client.delete_deployment}[action](deployment)
    print(f"schedule {name}: " + {"pause": "paused", "resume": "goes on", "remove": "removed; its records stay"}[action])
    return 0


def history(root: Path, as_json: bool) -> int:
    """Needs no server, and writes nothing: that a run died is shown here, and recorded by the next one."""
    records = read_records(root)
    try:
        with run_lock(root, what="gr2 schedule history"):
            records = [crashed(record) if record.outcome == RUNNING else record for record in records]
    except Busy:
        pass  # a run is at work, so an unfinished record is its own
    if as_json:
        print(json.dumps([asdict(record) for record in records], indent=2))
        return 0
    table = Table("due (UTC)", "schedule", "outcome", "stages", "what", box=None, pad_edge=False)
    for record in records:
        table.add_row(*map(Text, (record.scheduled[:16], record.schedule, record.outcome, str(len(record.stages)), record.message)))
    return show(table if records else "no scheduled run has been here yet")

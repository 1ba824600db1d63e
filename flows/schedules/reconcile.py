"""Gives every scheduled run of this checkout that is over a record and a state: also those that no process of ours ended."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.schedules.deployments import deployments, due_of, pool_name, runs_of, stamp
from tasks.run.history import Record, close_unfinished, now, read_records, write_record

COLLISION = "Deployment concurrency limit reached."  # how Prefect's server says that the run before is still at work
MISSED = "one run of the schedule did the work of all that were due by then"


def reconcile_runs(client: Any, root: Path, me: str = "") -> None:
    """To be called with the run lock held.

    Unfinished records become Crashed, here and on the server. Of the runs that were due while nothing worked, one happens, the others
    are Missed. The one that happens is the flow run `me`, which represents all of its schedule, or else the newest of each schedule.
    """
    for crashed in close_unfinished(root, but=me):
        _end(client, crashed.flow_run, "Crashed", crashed.message)
    for name, deployment in deployments(client, pool_name(root)).items():
        in_progress = any(str(run.id) == me for run in runs_of(client, deployment.id, ["RUNNING", "PENDING"]))
        _mark_missed(client, runs_of(client, deployment.id, ["SCHEDULED"]), represented=in_progress)
        _record_ended(client, root, name, runs_of(client, deployment.id, ["CANCELLED", "CRASHED", "FAILED"]))


def _mark_missed(client: Any, waiting: list[Any], represented: bool) -> None:
    moment = datetime.now(UTC)
    due = sorted((run for run in waiting if run.expected_start_time and run.expected_start_time <= moment), key=due_of)
    newest = "" if represented else str(due[-1].id) if due else ""
    for run in due:
        if str(run.id) != newest:
            _end(client, run.id, "Missed", MISSED)


def _record_ended(client: Any, root: Path, name: str, ended: list[Any]) -> None:
    """Records of runs that ended without a process of ours to write one."""
    records = read_records(root)
    known = {record.flow_run for record in records}
    for run in ended:
        if str(run.id) in known or run.state is None:
            continue
        outcome, message = _outcome(run, records)
        due, over = stamp(due_of(run)), stamp(run.state.timestamp)
        write_record(root, Record(str(run.id), name, outcome, message, scheduled=due, ended=over))


def _outcome(run: Any, records: list[Record]) -> tuple[str, str]:
    """Prefect cancels a run that comes due while the one before holds its deployment: which was at work says what that means."""
    message = run.state.message or ""
    if message != COLLISION:
        name = run.state.name if run.state.name in ("Missed", "Skipped") else run.state.type.value.capitalize()
        return name, message
    at = stamp(run.state.timestamp)
    at_work = [record for record in records if record.began and record.began <= at <= (record.ended or now())]
    if at_work and at_work[-1].began < stamp(due_of(run)):
        return "Skipped", f"the run of {at_work[-1].began} was still at work"
    return "Missed", MISSED


def _end(client: Any, flow_run: Any, name: str, message: str) -> None:
    from prefect.client.schemas.objects import State, StateType
    from prefect.exceptions import ObjectNotFound

    try:
        state = client.read_flow_run(flow_run).state
        if state is None or not state.is_final():
            kind = StateType.CRASHED if name == "Crashed" else StateType.CANCELLED
            client.set_flow_run_state(flow_run, State(type=kind, name=name, message=message), force=name == "Crashed")
    except ObjectNotFound:
        return  # someone deleted it from the server

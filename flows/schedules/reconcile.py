"""Gives every scheduled run of this checkout that is over a record and a state, even if its process died or none was started for it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from flows.schedules.deployments import deployments, due_of, pool_name, runs_of, stamp
from tasks.run.history import Record, close_unfinished, now, read_records, write_record

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

# What Prefect's server writes into a run that it cancels because the run before is still at work.
COLLISION = "Deployment concurrency limit reached."
MISSED = "one run of the schedule did the work of all that were due by then"


def reconcile_runs(client: "SyncPrefectClient", root: Path, current_run: str = "") -> None:
    """To be called with the run lock held.

    Unfinished records become Crashed, here and on the server. Of the runs that came due while no worker served, one takes place and the
    others become Missed. That one is the flow run `current_run` for its own schedule, and the newest for every other schedule.
    """
    for crashed in close_unfinished(root, except_run=current_run):
        _end(client, UUID(crashed.flow_run), "Crashed", crashed.message)
    for name, deployment in deployments(client, pool_name(root)).items():
        in_progress = any(str(run.id) == current_run for run in runs_of(client, deployment.id, ["RUNNING", "PENDING"]))
        _mark_missed(client, runs_of(client, deployment.id, ["SCHEDULED"]), represented=in_progress)
        _record_ended(root, name, runs_of(client, deployment.id, ["CANCELLED", "CRASHED", "FAILED"]))


def _mark_missed(client: "SyncPrefectClient", waiting: list["FlowRun"], represented: bool) -> None:
    """`represented`: whether a run of the schedule is in progress, so that all of `waiting` which are due are missed."""
    moment = datetime.now(UTC)
    due = sorted((run for run in waiting if run.expected_start_time and run.expected_start_time <= moment), key=due_of)
    newest = "" if represented else str(due[-1].id) if due else ""
    for run in due:
        if str(run.id) != newest:
            _end(client, run.id, "Missed", MISSED)


def _record_ended(root: Path, name: str, ended: list["FlowRun"]) -> None:
    """Writes the records of runs that ended without a process that could write one."""
    records = read_records(root)
    recorded_runs = {record.flow_run for record in records}
    for run in ended:
        if str(run.id) in recorded_runs or run.state is None:
            continue
        outcome, message = _outcome(run, records)
        due, over = stamp(due_of(run)), stamp(run.state.timestamp)
        write_record(root, Record(str(run.id), name, outcome, message, scheduled=due, ended=over))


def _outcome(run: "FlowRun", records: list[Record]) -> tuple[str, str]:
    """(outcome, message) of a run in a final state.

    Prefect cancels a run that comes due while another of its deployment is at work. If that one had begun before this was due, this one
    was skipped; if it began later, it was itself late and did the work of this one too, which is then missed.
    """
    assert run.state is not None  # `_record_ended` passes over runs without one
    message = run.state.message or ""
    if message != COLLISION:
        name = run.state.name if run.state.name in ("Missed", "Skipped") else run.state.type.value.capitalize()
        return name, message
    at = stamp(run.state.timestamp)  # when Prefect cancelled it
    at_work = [record for record in records if record.began and record.began <= at <= (record.ended or now())]
    if at_work and at_work[-1].began < stamp(due_of(run)):
        return "Skipped", f"the run of {at_work[-1].began} was still at work"
    return "Missed", MISSED


def _end(client: "SyncPrefectClient", flow_run: UUID, name: str, message: str) -> None:
    """Gives the flow run its final state `name`, unless it has one or the server no longer knows it."""
    # Imported here: Prefect reads its settings at its import, and the caller sets them first (flows.server.settings).
    from prefect.client.schemas.objects import State, StateType
    from prefect.exceptions import ObjectNotFound

    try:
        state = client.read_flow_run(flow_run).state
        if state is None or not state.is_final():
            state_type = StateType.CRASHED if name == "Crashed" else StateType.CANCELLED
            # force: the server believes that a crashed run is still running, and its process is not there to agree.
            client.set_flow_run_state(flow_run, State(type=state_type, name=name, message=message), force=name == "Crashed")
    except ObjectNotFound:
        return  # someone deleted it from the server

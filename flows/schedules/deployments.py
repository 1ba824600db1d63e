"""The schedules of this checkout on a Prefect server: deployments of flows.schedules.flow on its own work pool.

Prepare the environment (flows.server.settings) before the functions are called: they import Prefect, which reads its settings then.
"""

import hashlib
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict
from uuid import UUID

from flows.nodes.pools import make_pool
from tasks.run.history import Record, read_records
from tasks.system.errors import ProjectError, nearest

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.client.schemas.schedules import CronSchedule

FLOW, ENTRYPOINT = "scheduled", "flows.schedules.flow.scheduled"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
PLANNING_S = 15  # how long to wait until the server's scheduler has planned a new schedule
PAGE = 200  # flow runs that Prefect's server returns at most in one answer


class LastRun(TypedDict):
    """The newest record of a schedule. `time`: when it ended, or began if it has not ended."""

    outcome: str
    time: str
    message: str


class ScheduleRow(TypedDict):
    """One schedule, as `gr2 schedule list --json` prints it. `next`: when its next run is due; null while paused or not planned yet."""

    name: str
    cron: str | None
    timezone: str | None
    on_new_data: bool
    profile: list[str]
    placement: str | None
    paused: bool
    next: str | None
    last: LastRun | None


class Listing(TypedDict):
    """`worker`: whether one serves the pool now. Times are ISO 8601 in UTC."""

    pool: str
    worker: bool
    schedules: list[ScheduleRow]


def pool_name(root: Path) -> str:
    """Two checkouts on one server never share a pool: a worker runs the code of its own checkout. The hash tells equal names apart."""
    folder = re.sub(r"[^a-z0-9]+", "-", root.resolve().name.lower()).strip("-")
    return f"gr2-{folder}-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]}"


def ensure_pool(client: "SyncPrefectClient", name: str) -> None:
    from prefect.workers.process import ProcessWorker

    # renew=False: whoever has changed the pool's template on the server keeps the change.
    make_pool(client, name, "process", ProcessWorker.get_default_base_job_template(), renew=False)


def create(
    client: "SyncPrefectClient", root: Path, name: str, cron: str, timezone: str | None, options: dict[str, str | bool | list[str] | None]
) -> None:
    """Creates the schedule `name`, or replaces it. `options`: the flow's other parameters."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions

    if not NAME.fullmatch(name):
        raise ProjectError(f"--name '{name}': letters, digits, - and _ make a name, as in: nightly")
    schedule = _cron(cron, timezone)
    pool = pool_name(root)
    ensure_pool(client, pool)
    client.create_deployment(
        flow_id=client.create_flow_from_name(FLOW),
        name=f"{pool}-{name}",
        entrypoint=ENTRYPOINT,
        work_pool_name=pool,
        # Prefect's process worker would run it in a temporary folder.
        job_variables={"working_dir": str(root.resolve())},
        parameters={"schedule": name, **options},
        enforce_parameter_schema=False,  # no schema is sent: making one would import the flow, and with it the pipeline
        schedules=[DeploymentScheduleCreate(schedule=schedule, active=True)],
        concurrency_limit=1,  # what comes due while a run is at work could only find the run lock taken
        concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        tags=["gr2", pool],
        paused=False,
        description=f"gr2 schedule of {root.resolve()}",
    )


def first_planned(client: "SyncPrefectClient", root: Path, name: str) -> str | None:
    """When the first run is due, as soon as the server's scheduler has planned it (it looks for new schedules every few seconds)."""
    deployment = find(client, root, name).id
    for _ in range(PLANNING_S):
        if due := [due_of(run) for run in runs_of(client, deployment, ["SCHEDULED"])]:
            return stamp(min(due))[:16]
        time.sleep(1)
    return None


def _cron(cron: str, timezone: str | None) -> "CronSchedule":
    from prefect.client.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    try:
        CronSchedule(cron=cron, timezone="UTC")  # alone first: the error of both together does not say which of them is wrong
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ProjectError(f"--cron '{cron}': {reason}; minute, hour, day, month, weekday, as in: '0 3 * * *' (every night at 3)") from None
    try:
        return CronSchedule(cron=cron, timezone=timezone or "UTC")
    except ValidationError:
        raise ProjectError(f"--timezone '{timezone}': no such timezone; a name of the IANA list, as in: Europe/Vienna") from None


def deployments(client: "SyncPrefectClient", pool: str) -> dict[str, "DeploymentResponse"]:
    """The deployment of each schedule of the pool, by the schedule's name."""
    from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName

    in_pool = client.read_deployments(work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])))
    by_schedule = {str(deployment.parameters.get("schedule")): deployment for deployment in in_pool if deployment.entrypoint == ENTRYPOINT}
    return dict(sorted(by_schedule.items()))


def find(client: "SyncPrefectClient", root: Path, name: str) -> "DeploymentResponse":
    by_name = deployments(client, pool_name(root))
    if name not in by_name:
        raise ProjectError(f"no schedule '{name}'{nearest(name, by_name)} (schedules of this checkout: {', '.join(by_name) or 'none'})")
    return by_name[name]


def schedule_listing(client: "SyncPrefectClient", root: Path) -> Listing:
    from prefect.exceptions import ObjectNotFound

    pool = pool_name(root)
    records = read_records(root)
    try:
        ready = str(getattr(client.read_work_pool(pool).status, "value", "")) == "READY"
    except ObjectNotFound:  # no schedule was ever made here
        ready = False
    rows = [_row(client, name, deployment, records) for name, deployment in deployments(client, pool).items()]
    return {"pool": pool, "worker": ready, "schedules": rows}


def _row(client: "SyncPrefectClient", name: str, deployment: "DeploymentResponse", records: list[Record]) -> ScheduleRow:
    cron = deployment.schedules[0].schedule if deployment.schedules else None
    last = next((record for record in reversed(records) if record.schedule == name), None)
    due = [run.expected_start_time for run in runs_of(client, deployment.id, ["SCHEDULED"]) if run.expected_start_time]
    return {
        "name": name,
        "cron": getattr(cron, "cron", None),
        "timezone": getattr(cron, "timezone", None),
        "on_new_data": bool(deployment.parameters.get("on_new_data")),
        "profile": profile_list(deployment.parameters.get("profile")),
        "placement": deployment.parameters.get("placement"),
        "paused": bool(deployment.paused),
        "next": min(due).astimezone(UTC).isoformat(timespec="seconds") if due and not deployment.paused else None,
        "last": {"outcome": last.outcome, "time": last.ended or last.began, "message": last.message} if last else None,
    }


def profile_list(value: str | list[str] | None) -> list[str]:
    """The flow's parameter `profile`; schedules of 0.2.0 have one name, or none."""
    return [value] if isinstance(value, str) else value or []


def runs_of(client: "SyncPrefectClient", deployment: UUID, types: list[str]) -> list["FlowRun"]:
    """Runs whose state is one of `types` (Prefect's names), newest first; for SCHEDULED alone the one due first comes first."""
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType(name) for name in types]))
    first_due = types == ["SCHEDULED"]
    return list(
        client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=state),
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
            sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC if first_due else FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=PAGE,
        )
    )


def due_of(run: "FlowRun") -> datetime:
    """When `run` was due; one that no schedule made, when it was created."""
    due = run.expected_start_time or run.created
    assert due is not None  # `created` is optional in Prefect's type alone: the server fills it in
    return due


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")

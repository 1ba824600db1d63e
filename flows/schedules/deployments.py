"""The schedules of this checkout on a Prefect server: deployments of flows.schedules.flow on its own work pool.

Prepare the environment (flows.server.settings) before the functions are called: they import Prefect.
"""

import hashlib
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.nodes.pools import make_pool
from tasks.run.history import read_records
from tasks.system.errors import ProjectError, nearest

FLOW, ENTRYPOINT = "scheduled", "flows.schedules.flow.scheduled"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
PLANNING_S = 15
MOST = 200  # flow runs that one question to the server gives


def pool_name(root: Path) -> str:
    """Two checkouts on one server never share a pool: a worker runs what lies in its own."""
    folder = re.sub(r"[^a-z0-9]+", "-", root.resolve().name.lower()).strip("-")
    return f"gr2-{folder}-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]}"


def ensure_pool(client: Any, name: str) -> None:
    from prefect.workers.process import ProcessWorker

    make_pool(client, name, "process", ProcessWorker.get_default_base_job_template(), renew=False)


def create(client: Any, root: Path, name: str, cron: str, timezone: str | None, options: dict[str, Any]) -> None:
    """Makes the schedule `name`, or puts this one in its place. `options`: the flow's other parameters."""
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
        job_variables={"working_dir": str(root.resolve())},
        parameters={"schedule": name, **options},
        enforce_parameter_schema=False,
        schedules=[DeploymentScheduleCreate(schedule=schedule, active=True)],
        concurrency_limit=1,
        concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        tags=["gr2", pool],
        paused=False,
        description=f"gr2 schedule of {root.resolve()}",
    )


def planned(client: Any, root: Path, name: str) -> str | None:
    """When the first run is due, as soon as the server's scheduler has planned it (it looks for new schedules every few seconds)."""
    deployment = find(client, root, name).id
    for _ in range(PLANNING_S):
        if due := [due_of(run) for run in runs_of(client, deployment, ["SCHEDULED"])]:
            return stamp(min(due))[:16]
        time.sleep(1)
    return None


def _cron(cron: str, timezone: str | None) -> Any:
    from prefect.client.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    try:
        CronSchedule(cron=cron, timezone="UTC")
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ProjectError(f"--cron '{cron}': {reason}; minute, hour, day, month, weekday, as in: '0 3 * * *' (every night at 3)") from None
    try:
        return CronSchedule(cron=cron, timezone=timezone or "UTC")
    except ValidationError:
        raise ProjectError(f"--timezone '{timezone}': no such timezone; a name of the IANA list, as in: Europe/Vienna") from None


def deployments(client: Any, pool: str) -> dict[str, Any]:
    """Schedule -> its deployment."""
    from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName

    in_pool = client.read_deployments(work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])))
    by_schedule = {str(one.parameters.get("schedule")): one for one in in_pool if one.entrypoint == ENTRYPOINT}
    return dict(sorted(by_schedule.items()))


def find(client: Any, root: Path, name: str) -> Any:
    known = deployments(client, pool_name(root))
    if name not in known:
        raise ProjectError(f"no schedule '{name}'{nearest(name, known)} (schedules of this checkout: {', '.join(known) or 'none'})")
    return known[name]


def listed(client: Any, root: Path) -> dict[str, Any]:
    """{"pool", "worker": whether one is there, "schedules": [{"name", "cron", ..., "next", "last"}]}; times ISO 8601 in UTC."""
    from prefect.exceptions import ObjectNotFound

    pool = pool_name(root)
    records = read_records(root)
    try:
        ready = str(getattr(client.read_work_pool(pool).status, "value", "")) == "READY"
    except ObjectNotFound:
        ready = False
    rows = []
    for name, deployment in deployments(client, pool).items():
        cron = deployment.schedules[0].schedule if deployment.schedules else None
        last = next((record for record in reversed(records) if record.schedule == name), None)
        due = [run.expected_start_time for run in runs_of(client, deployment.id, ["SCHEDULED"]) if run.expected_start_time]
        rows.append(
            {
                "name": name,
                "cron": getattr(cron, "cron", None),
                "timezone": getattr(cron, "timezone", None),
                "on_new_data": bool(deployment.parameters.get("on_new_data")),
                "profile": deployment.parameters.get("profile"),
                "placement": deployment.parameters.get("placement"),
                "paused": bool(deployment.paused),
                "next": min(due).astimezone(UTC).isoformat(timespec="seconds") if due and not deployment.paused else None,
                "last": {"outcome": last.outcome, "time": last.ended or last.began, "message": last.message} if last else None,
            }
        )
    return {"pool": pool, "worker": ready, "schedules": rows}


def runs_of(client: Any, deployment: Any, types: list[str]) -> list[Any]:
    """Newest first; of those that wait, the first due first."""
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType(kind) for kind in types]))
    first_due = types == ["SCHEDULED"]
    return list(
        client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=state),
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
            sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC if first_due else FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=MOST,
        )
    )


def due_of(run: Any) -> datetime:
    due: datetime = run.expected_start_time or run.created
    return due


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")

"""A placement on the Prefect server: its work pools, the limits that count their GPUs, and the deployment each pool's workers run."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.server.connection import connected
from tasks.nodes.placement import Placement, Pool
from tasks.system.errors import ProjectError
from tasks.system.yaml_files import parse, read_text

FLOW = "node"


def limit_of(pool: Pool) -> str:
    return f"gr2-gpus-{pool.name}"


def ensure(root: Path, placement: Placement) -> list[str]:
    """Makes or renews all that `placement` needs; returns what there is now, one line a pool. ProjectError without a server."""
    with connected("nodes") as client:
        flow_id = client.create_flow_from_name(FLOW)
        return [_ensure(client, root, flow_id, pool) for pool in placement.pools.values()]


def _ensure(client: Any, root: Path, flow_id: Any, pool: Pool) -> str:
    from prefect.exceptions import ObjectAlreadyExists

    make_pool(client, pool.name, pool.type, _template(root, pool))
    if pool.gpus:
        with suppress(ObjectAlreadyExists):  # somebody made it between Prefect's look and its word
            client.upsert_global_concurrency_limit_by_name(limit_of(pool), pool.gpus)
    client.create_deployment(
        flow_id=flow_id,
        name=pool.name,
        entrypoint="flows.nodes.stage_flow.node",  # a module: each worker's own checkout has it
        work_pool_name=pool.name,
        job_variables=pool.job_variables,
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": "{{ $GR2_NODE_HOME }}"}}],
        enforce_parameter_schema=False,
        description="One stage of the pipeline, on a node of this pool",
    )
    return f"{pool.name}: {pool.type}" + (f", {pool.gpus} GPUs" if pool.gpus else "")


def make_pool(client: Any, name: str, kind: str, template: dict[str, Any], renew: bool = True) -> None:
    """Makes the pool; one that is there gets this template, if `renew`. Several processes may do so at once: workers start together."""
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists

    try:
        client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template))
    except ObjectAlreadyExists:
        there = client.read_work_pool(name)
        if there.type != kind:
            raise ProjectError(f"the Prefect server has a pool '{name}' of type {there.type}; asked for is {kind}: rename one") from None
        if renew and there.base_job_template != template:
            client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))


def _template(root: Path, pool: Pool) -> dict[str, Any]:
    if pool.template:
        return dict(parse(read_text(root / pool.template, "the pool's base job template"), pool.template))
    from prefect.workers.process import ProcessWorker

    return dict(ProcessWorker.get_default_base_job_template())

"""A placement on the Prefect server: its work pools, the limits that count their GPUs, and the deployment each pool's workers run.

Prefect is imported inside the functions: it reads its settings at its import, and commands set them first (flows.server.settings).
"""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.server.connection import connected
from tasks.nodes.placement import Placement, Pool
from tasks.system.errors import ProjectError
from tasks.system.yaml_files import parse, read_text

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

FLOW = "node"
JobTemplate = dict[str, Any]  # of Prefect: `job_configuration` and `variables`, whose keys depend on the type of the pool


def limit_of(pool: Pool) -> str:
    return f"gr2-gpus-{pool.name}"


def ensure(root: Path, placement: Placement) -> list[str]:
    """Creates or updates all that `placement` needs on the server; returns one line about each pool. ProjectError without a server."""
    with connected("nodes") as client:
        flow_id = client.create_flow_from_name(FLOW)
        return [_ensure(client, root, flow_id, pool) for pool in placement.pools.values()]


def _ensure(client: "SyncPrefectClient", root: Path, flow_id: UUID, pool: Pool) -> str:
    from prefect.exceptions import ObjectAlreadyExists

    make_pool(client, pool.name, pool.type, _template(root, pool))
    if pool.gpus:
        with suppress(ObjectAlreadyExists):  # upsert looks first, then creates: another process may create it in between
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


def make_pool(client: "SyncPrefectClient", name: str, pool_type: str, template: JobTemplate, renew: bool = True) -> None:
    """Creates the pool; an existing one gets this template if `renew`. Safe in several processes at once: workers start together."""
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists

    try:
        client.create_work_pool(WorkPoolCreate(name=name, type=pool_type, base_job_template=template))
    except ObjectAlreadyExists:
        existing = client.read_work_pool(name)
        if existing.type != pool_type:
            raise ProjectError(
                f"the Prefect server has a pool '{name}' of type {existing.type}, the placement wants {pool_type}: rename one"
            ) from None
        if renew and existing.base_job_template != template:
            client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))


def _template(root: Path, pool: Pool) -> JobTemplate:
    if pool.template:  # of the project, so that it is versioned with the code that runs in it
        return dict(parse(read_text(root / pool.template, "the pool's base job template"), pool.template))
    from prefect.workers.process import ProcessWorker

    return dict(ProcessWorker.get_default_base_job_template())

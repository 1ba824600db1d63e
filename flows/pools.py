"""A placement on the Prefect server: its work pools, the limits that count their GPUs, and the deployment each pool's workers run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.errors import ProjectError
from tasks.placement import Placement, Pool
from tasks.yamlfile import parse, read_text

FLOW = "node"


def limit_of(pool: Pool) -> str:
    return f"gr2-gpus-{pool.name}"


def ensure(root: Path, placement: Placement) -> list[str]:
    """Makes or renews all that `placement` needs; returns what there is now, one line a pool. ProjectError without a server."""
    with server() as client:
        flow_id = client.create_flow_from_name(FLOW)
        return [_ensure(client, root, flow_id, pool) for pool in placement.pools.values()]


@contextmanager
def server() -> Iterator[Any]:
    """A client of the Prefect server that PREFECT_API_URL names; ProjectError without one: nodes cannot reach a server of a run's own."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        raise ProjectError(
            "nodes need a Prefect server that all can reach: prefect server start, then export PREFECT_API_URL=http://HOST:4200/api"
        )
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            raise ProjectError(f"the Prefect server at {PREFECT_API_URL.value()} does not answer ({str(error) or type(error).__name__})")
        yield client


def _ensure(client: Any, root: Path, flow_id: Any, pool: Pool) -> str:
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    template = _template(root, pool)
    try:
        there = client.read_work_pool(pool.name)
        if there.type != pool.type:
            raise ProjectError(
                f"the Prefect server has a pool '{pool.name}' of type {there.type}; the placement says {pool.type}: rename one"
            )
        if template:
            client.update_work_pool(pool.name, WorkPoolUpdate(base_job_template=template))
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=pool.name, type=pool.type, base_job_template=template))
    if pool.gpus:
        client.upsert_global_concurrency_limit_by_name(limit_of(pool), pool.gpus)
    client.create_deployment(
        flow_id=flow_id,
        name=pool.name,
        entrypoint="flows.node.node",  # a module: each worker's own checkout has it
        work_pool_name=pool.name,
        job_variables=pool.job_variables,
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": "{{ $GR2_NODE_HOME }}"}}],
        enforce_parameter_schema=False,
        description="One stage of the pipeline, on a node of this pool",
    )
    return f"{pool.name}: {pool.type}" + (f", {pool.gpus} GPUs" if pool.gpus else "")


def _template(root: Path, pool: Pool) -> dict[str, Any]:
    if pool.template:
        return dict(parse(read_text(root / pool.template, "the pool's base job template"), pool.template))
    from prefect.workers.process import ProcessWorker

    return dict(ProcessWorker.get_default_base_job_template())

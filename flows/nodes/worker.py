"""The worker of a placement's pool in this checkout, which is then a node: its runs are those of the flow `node`."""

from pathlib import Path

from flows.nodes.pools import ensure
from flows.server.connection import connected
from flows.server.database import warn_of_sqlite
from flows.server.worker_process import serve
from tasks.nodes.placement import Placement
from tasks.nodes.snapshot import origin_of
from tasks.system.errors import ProjectError, nearest


def node_worker(root: Path, placement: Placement, pool: str, limit: int | None = None) -> int:
    """Serves until it is stopped. `limit`: stages at a time (None: as many as come; GPUs are counted besides)."""
    if pool not in placement.pools:
        pools = placement.pools
        raise ProjectError(f"placement '{placement.name}' has no pool '{pool}'{nearest(pool, pools)} (pools: {', '.join(pools) or 'none'})")
    kind = placement.pools[pool].type
    if kind == "process":
        origin_of(root)  # ProjectError at once: a checkout without an origin cannot fetch the code of any run
    with connected("nodes") as client:
        warn_of_sqlite(client)
    ensure(root, placement)
    return serve(root, pool, kind, ["--limit", str(limit)] if limit else [], {"GR2_NODE_HOME": str(root)})

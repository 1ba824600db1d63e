"""A worker of a placement's pool in this checkout: Prefect's own, with what the flow `node` needs to find its way."""

import os
import sys
from pathlib import Path
from typing import NoReturn

from tasks.errors import ProjectError, nearest
from tasks.placement import Placement


def node_worker(root: Path, placement: Placement, pool: str, limit: int | None = None) -> NoReturn:
    """Becomes the worker. `limit`: stages at a time (None: as many as come; GPUs are counted besides)."""
    if pool not in placement.pools:
        known = placement.pools
        raise ProjectError(
            f"the placement '{placement.name}' has no pool '{pool}'{nearest(pool, known)} (pools: {', '.join(known) or 'none'})"
        )
    from flows.pools import ensure
    from tasks.snapshot import origin_of

    ensure(root, placement)
    kind = placement.pools[pool].type
    if kind == "process":
        origin_of(root)  # a checkout without one could never fetch a run's code: said now, not at the first stage
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, "GR2_NODE_HOME": str(root)}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", kind]
    command += ["--limit", str(limit)] if limit else []
    sys.stdout.flush()
    os.execve(command[0], command, env)  # one process: signals of a service manager reach Prefect's worker itself

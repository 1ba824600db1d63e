"""The worker of a checkout's schedules."""

from pathlib import Path

from flows.schedules.deployments import ensure_pool, pool_name
from flows.schedules.reconcile import reconcile_runs
from flows.server.connection import connected
from flows.server.database import warn_of_sqlite
from flows.server.worker_process import serve
from tasks.system.locks import Busy, run_lock


def schedule_worker(root: Path) -> int:
    """Serves until it is stopped; runs that came due before get their states first.

    Prepare the environment (flows.server.settings) before.
    """
    pool = pool_name(root)
    with connected("schedules") as client:
        warn_of_sqlite(client)
        ensure_pool(client, pool)
        try:
            with run_lock(root, what="gr2 worker"):
                reconcile_runs(client, root)
        except Busy as busy:
            # The run that holds the lock reconciles at its end.
            print(f"gr2 worker: {busy}; what came due before is sorted out by the next run")
    return serve(root, pool, "process")

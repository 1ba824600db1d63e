"""The worker of a checkout's schedules."""

from pathlib import Path

from flows.schedules import ensure_pool, pool_name
from flows.server import connected
from flows.serving import serve
from flows.settled import settle
from tasks.run_lock import Busy, run_lock


def schedule_worker(root: Path) -> int:
    """Serves until it is stopped; what came due before is sorted out first. Prepare the environment before."""
    pool = pool_name(root)
    with connected("schedules") as client:
        ensure_pool(client, pool)
        try:
            with run_lock(root, what="gr2 worker"):
                settle(client, root)
        except Busy as busy:
            print(f"gr2 worker: {busy}; what came due before is sorted out by the next run")
    return serve(root, pool, "process")

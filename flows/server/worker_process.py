"""Prefect's worker beside a process that ends its runs in good order when it is stopped.

Prefect's worker, told to stop, kills the processes of its runs on the spot; their stages would go on by themselves.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

END_S = 120.0  # a stage that ends, and its earlier outputs that come back from DVC's cache


def serve(root: Path, pool: str, kind: str, words: list[str] | None = None, env: dict[str, str] | None = None) -> int:
    """Runs `prefect worker start` for `pool` in the checkout at `root` until Ctrl-C or SIGTERM (exit code 0; a second one kills), or
    until it ends by itself. Prepare the environment first (flows.server.settings). `words`, `env`: further options and variables."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", kind, "--pool", pool, *(words or [])]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    whole = {**os.environ, "PYTHONPATH": path, **(env or {})}
    print(f"gr2 worker: serving the pool {pool} in {root}", flush=True)
    signal.signal(signal.SIGTERM, _stopped)
    # A session of its own: Ctrl-C reaches this process alone.
    child = subprocess.Popen(command, cwd=root, env=whole, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        return child.wait()
    except KeyboardInterrupt:
        print("gr2 worker: stopping", flush=True)
        _end_runs(child.pid)
        return 0
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _stopped(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _end_runs(worker: int) -> None:
    """SIGTERM to the runs that the process `worker` has started, and waits for their end: their last word goes to Prefect's server.

    The worker itself is held meanwhile, for it would take the next run, and is killed by the caller.
    """
    import psutil

    try:
        own = psutil.Process(worker)
        own.suspend()
        runs = own.children()
    except psutil.NoSuchProcess:
        return
    for run in runs:
        run.terminate()
    deadline = time.monotonic() + END_S
    while any(_alive(run) for run in runs) and time.monotonic() < deadline:
        time.sleep(0.2)


def _alive(process: Any) -> bool:
    """A zombie, whose parent is held, is not."""
    import psutil

    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

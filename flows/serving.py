"""Prefect's worker beside a process that ends its runs in good order when it is stopped.

Prefect's worker, told to stop, kills the processes of its runs on the spot; their stages would go on by themselves.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

END_S = 120.0  # a stage that ends, and its earlier outputs that come back from DVC's cache


def serve(root: Path, pool: str, kind: str, words: list[str] | None = None, env: dict[str, str] | None = None) -> int:
    """Runs `prefect worker start` for `pool` in the checkout at `root` until Ctrl-C or SIGTERM (exit code 0; a second one kills), or
    until it ends by itself. Prepare the environment first (flows.environment). `words`, `env`: further options and variables."""
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
        child.terminate()
        child.wait()
        return 0
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)


def _stopped(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _end_runs(worker: int) -> None:
    """SIGTERM to the runs that the process `worker` has started, and waits for their end: their last word goes to Prefect's server."""
    import psutil

    try:
        runs = psutil.Process(worker).children()
    except psutil.NoSuchProcess:
        return
    for run in runs:
        run.terminate()
    psutil.wait_procs(runs, timeout=END_S)

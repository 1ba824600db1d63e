"""Runs Prefect's worker as a child and, when stopped, ends its flow runs in good order.

Prefect's worker alone kills the processes of its flow runs when it is stopped, and their stages would go on as orphans.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import psutil

END_S = 120.0  # for a stage to end and for DVC to put its earlier outputs back


def serve(root: Path, pool: str, kind: str, options: list[str] | None = None, env: dict[str, str] | None = None) -> int:
    """Runs `prefect worker start` for `pool` in the checkout at `root` until Ctrl-C or SIGTERM (exit code 0; a second one kills), or
    until it ends by itself. Prepare the environment first (flows.server.settings). `options`, `env`: further options and variables."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", kind, "--pool", pool, *(options or [])]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    full_env = {**os.environ, "PYTHONPATH": path, **(env or {})}
    print(f"gr2 worker: serving the pool {pool} in {root}", flush=True)
    signal.signal(signal.SIGTERM, _stopped)
    # A new session: Ctrl-C on the terminal reaches this process alone.
    child = subprocess.Popen(command, cwd=root, env=full_env, stdin=subprocess.DEVNULL, start_new_session=True)
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


def _stopped(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end_runs(worker: int) -> None:
    """Sends SIGTERM to the flow runs that the process `worker` has started and waits until they have reported their last state.

    The worker itself is suspended meanwhile, else it would take the next run; the caller kills it.
    """
    try:
        worker_process = psutil.Process(worker)
        worker_process.suspend()
        runs = worker_process.children()
    except psutil.NoSuchProcess:
        return
    for run in runs:
        run.terminate()
    deadline = time.monotonic() + END_S
    while any(_alive(run) for run in runs) and time.monotonic() < deadline:
        time.sleep(0.2)


def _alive(process: psutil.Process) -> bool:
    """A zombie is not: its parent, the worker, is suspended and cannot reap it."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

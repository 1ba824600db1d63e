"""The worker of a checkout's schedules: Prefect's own, beside a process that ends the run at work in good order when it is stopped.

Prefect's worker, told to stop, kills the processes of its runs on the spot; their stages would go on by themselves.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from flows.schedules import connected, ensure_pool, pool_name
from flows.settled import settle
from tasks.records import RUNNING, read_records
from tasks.run_lock import Busy, run_lock

END_S = 120.0  # a stage that ends, and its earlier outputs that come back from DVC's cache


def schedule_worker(root: Path) -> int:
    """Serves until Ctrl-C or SIGTERM (exit code 0; a second one kills), or Prefect's worker ends. Prepare the environment first."""
    pool = pool_name(root)
    with connected() as client:
        ensure_pool(client, pool)
        try:
            with run_lock(root, what="gr2 worker"):
                settle(client, root)
        except Busy as busy:
            print(f"gr2 worker: {busy}; what came due before is sorted out by the next run")
    print(f"gr2 worker: serving the pool {pool} in {root}", flush=True)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool", pool]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    signal.signal(signal.SIGTERM, _stopped)
    # A session of its own: Ctrl-C reaches this process alone.
    child = subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        return child.wait()
    except KeyboardInterrupt:
        print("gr2 worker: stopping", flush=True)
        _end_run(root, child.pid)
        child.terminate()
        child.wait()
        return 0
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)


def _stopped(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _end_run(root: Path, worker: int) -> None:
    """SIGTERM to the run that the process `worker` has started, and waits for its end: its last word goes to Prefect's server."""
    record = next((own for own in reversed(read_records(root)) if own.outcome == RUNNING and _parent(own.pid) == worker), None)
    if record is None:
        return
    deadline = time.monotonic() + END_S
    try:
        os.kill(record.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            os.kill(record.pid, 0)
            time.sleep(0.2)
    except ProcessLookupError:
        return


def _parent(pid: int) -> int | None:
    """Of a living process; so an old record, whose pid another process may have now, is not taken for one at work."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None

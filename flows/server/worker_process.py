"""Runs Prefect's worker in a guard (flows.server.worker_guard), which ends its flow runs in good order when this process ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType


def serve(root: Path, pool: str, kind: str, options: list[str] | None = None, env: dict[str, str] | None = None) -> int:
    """Runs `prefect worker start` for `pool` in the checkout at `root` until Ctrl-C or SIGTERM (exit code 0; a second one kills), or
    until it ends by itself. Prepare the environment first (flows.server.settings). `options`, `env`: further options and variables."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", kind, "--pool", pool, *(options or [])]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    print(f"gr2 worker: serving the pool {pool} in {root}", flush=True)
    signal.signal(signal.SIGTERM, _stopped)
    return guarded(command, root, {**os.environ, "PYTHONPATH": path, **(env or {})})


def guarded(command: list[str], root: Path, env: dict[str, str]) -> int:
    """The exit code of `command`, which runs in a guard; 0 after a KeyboardInterrupt. Nothing of it is left afterwards."""
    guard = subprocess.Popen(
        [sys.executable, "-m", "flows.server.worker_guard", *command],
        cwd=root,
        env=env,
        stdin=subprocess.PIPE,  # its other end closes with this process, however it ends: the guard waits for that
        start_new_session=True,  # Ctrl-C on the terminal reaches this process alone
    )
    assert guard.stdin
    code: int | None = None
    try:
        code = guard.wait()
        return code
    except KeyboardInterrupt:
        print("gr2 worker: stopping", flush=True)
        guard.stdin.close()
        guard.wait()
        return 0
    finally:
        if code is None or code < 0:  # stopped, or the guard was killed: what it started may still be there
            kill_group(guard.pid)
            guard.wait()


def kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def _stopped(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

"""`python -m flows.server.worker_guard COMMAND ...`: Prefect's worker, which ends with the `gr2 worker` that started this process.

The guard's standard input is a pipe that only `gr2 worker` holds. When it closes, because `gr2 worker` stops or was killed, the guard ends
the worker's flow runs in good order, then the worker. Prefect's worker alone kills the processes of its flow runs when it is stopped, and
their stages would go on as orphans; and after a kill -9 of its parent it would go on taking runs. If the guard itself is killed, Linux
kills the worker with it, and `gr2 worker` kills what is left of the guard's process group.
"""

import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

import psutil

from tasks.system.lifeline import killed_with_parent

END_S = 120.0  # for a stage to end and for DVC to put its earlier outputs back
LOOK_S = 1.0  # how often it looks whether the worker has ended by itself


def main(command: list[str]) -> int:
    """The worker's exit code; 0 when the pipe closed or on SIGTERM. Ends its own process group, itself included, in those cases."""
    signal.signal(signal.SIGTERM, _stopped)
    worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=killed_with_parent())
    try:
        while not select.select([sys.stdin], [], [], LOOK_S)[0]:
            if (code := worker.poll()) is not None:
                return code
    except KeyboardInterrupt:
        pass
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _end_runs(worker.pid)
    os.killpg(0, signal.SIGKILL)
    return 0


def _stopped(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end_runs(worker: int) -> None:
    """Sends SIGTERM to the flow runs that the process `worker` has started and waits until they have reported their last state.

    The worker itself is suspended meanwhile, else it would take the next run.
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A node's places to run a stage in: clones of the project, one stage at a time each, all on the node's one DVC cache.

A lock on a slot goes with the process that holds it, also at kill -9; a stage that such a process left behind is ended before the
slot, or a GPU, is given to the next.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tasks.system.errors import Interrupted, ProjectError
from tasks.system.locks import file_lock
from tasks.system.processes import kill_and_wait, marked_processes

SLOTS = Path(".gr2") / "node"
MARK = "GR2_SLOT"  # stands in the environment of every process that works in a slot, with the slot's folder
GPUS = "GR2_GPUS"  # and here the GPUs it was given


@dataclass(frozen=True)
class Slot:
    """`root`: the clone. `env`: for the stage's processes."""

    root: Path
    env: dict[str, str]


@contextmanager
def acquire_slot(home: Path) -> Iterator[Slot]:
    """A slot of the node whose checkout is `home`: the first that is free, a new one when all are at work."""
    for number in count():
        root = home.resolve() / SLOTS / f"slot-{number}"
        with file_lock(root.with_suffix(".lock")) as acquired:
            if acquired:
                kill_and_wait(
                    marked_processes(MARK, str(root))
                )  # the lock went with a killed worker; its stage may be alive and still writing here
                yield Slot(root, {MARK: str(root)})
                return


@contextmanager
def acquire_gpus(gpu_count: int, stopped: Callable[[], bool] = lambda: False, folder: Path | None = None) -> Iterator[dict[str, str]]:
    """Waits for `gpu_count` GPUs of this machine; yields the environment that shows a stage these and no others.

    With a count of 0 it neither waits nor hides GPUs.
    Interrupted when `stopped()` while it waits.
    """
    if not gpu_count:
        yield {}
        return
    all_gpus = machine_gpus()
    if gpu_count > len(all_gpus):
        raise ProjectError(
            f"{gpu_count} GPUs are wanted, this machine has {len(all_gpus)}; see resources in params.yaml and the placement's rules"
        )
    # All or none, and all given back before the next try: two stages that each kept some would wait for each other for ever.
    while True:
        held: list[tuple[str, AbstractContextManager[bool]]] = []
        for gpu in all_gpus:
            lock: AbstractContextManager[bool] = file_lock((folder or gpu_locks()) / f"gpu-{gpu}.lock")
            # A free lock is not enough: the stage of a killed worker may still compute on that GPU.
            if lock.__enter__() and len(held) < gpu_count and not marked_processes(GPUS, gpu):
                held.append((gpu, lock))
            else:
                lock.__exit__(None, None, None)
        try:
            if len(held) == gpu_count:
                names = ",".join(gpu for gpu, _ in held)
                yield {"CUDA_VISIBLE_DEVICES": names, GPUS: names}
                return
        finally:
            for _, lock in held:
                lock.__exit__(None, None, None)
        if stopped():
            raise Interrupted("", "stopped while it waited for GPUs")
        time.sleep(1.0)


def gpu_locks() -> Path:
    """Where the locks of this machine's GPUs lie: one place for all its checkouts and users (GR2_GPU_LOCKS)."""
    return Path(os.environ.get("GR2_GPU_LOCKS") or "/var/tmp/gr2-gpus")


def machine_gpus() -> list[str]:
    """GPUs by number: those of GR2_NODE_GPUS (as `0,1`), else of CUDA_VISIBLE_DEVICES, else all that nvidia-smi lists."""
    import subprocess

    numbers = os.environ.get("GR2_NODE_GPUS", os.environ.get("CUDA_VISIBLE_DEVICES"))
    if numbers is not None:  # empty, too, is an answer: none
        return [gpu.strip() for gpu in numbers.split(",") if gpu.strip()]
    try:
        result = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return result.stdout.split()

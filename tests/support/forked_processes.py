"""Several processes of one training, as torchrun gives a stage, without their start: each is forked off a process that has torch,
transformers and DeepSpeed in memory. Importing them anew takes ten times as long as a training of a test.

That torchrun itself starts stages is tested in test_tiny_qwen3.py and test_launch_nodes.py.
"""

import importlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
# No GPU: DeepSpeed and torch decide at their import.
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support.preloaded"])


def run_stage(stage: str, project: Path, count: int) -> "subprocess.CompletedProcess[str]":
    """`python -m stages.<stage>` in the folder `project`, as torchrun has it do in `count` processes."""
    return run("runpy", project, count, function="run_module", arguments=(f"stages.{stage}", None, "__main__"))


def start_stage(stage: str, project: Path) -> BaseProcess:
    """`python -m stages.<stage>` in the folder `project`, in one process that has begun; what it prints is in project/processes.log."""
    call = ("runpy", "run_module", (f"stages.{stage}", None, "__main__"))
    process = CONTEXT.Process(target=_main, args=(call, 0, 1, 0, project / "processes.log", project))
    with _environment():
        process.start()
    return process


def run_script(path: Path, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """`python path words` in `folder`; like Python itself, it finds what lies beside the script and what is installed."""
    return run(__name__, folder, 1, function="_script", arguments=(str(path), *words))


def _script(*words: str) -> None:
    sys.argv = list(words)
    sys.path = [str(Path(words[0]).parent), *(one for one in sys.path if one and Path(one).resolve() != ROOT)]
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "bench")]:
        del sys.modules[name]
    runpy.run_path(words[0], run_name="__main__")


def run(
    module: str,
    folder: Path,
    count: int,
    cwd: Path | None = None,
    function: str = "main",
    arguments: tuple[Any, ...] | None = None,
    timeout_s: float = 900,
) -> "subprocess.CompletedProcess[str]":
    """`function` of `module` in `count` processes; several find each other by torchrun's variables.

    cwd: theirs, None = folder; arguments: None = (folder,).

    The exit code is that of the first that fails, at which the others are ended; stderr has what all of them print.
    """
    port = free_port()
    log = folder / "processes.log"
    log.unlink(missing_ok=True)
    call = (module, function, (folder,) if arguments is None else arguments)
    processes = [CONTEXT.Process(target=_main, args=(call, rank, count, port, log, cwd or folder)) for rank in range(count)]
    with _environment():
        for process in processes:
            process.start()
    deadline, running = time.monotonic() + timeout_s, list(processes)
    while running:
        wait([process.sentinel for process in running], timeout=max(0.0, deadline - time.monotonic()))
        failed = [process for process in running if process.exitcode]
        running = [process for process in running if process.exitcode is None]
        if failed or time.monotonic() >= deadline:
            for process in running:
                process.kill()
                process.join()
            code = (failed or running)[0].exitcode or 1
            return subprocess.CompletedProcess([module], code, "", log.read_text() if log.exists() else "")
    return subprocess.CompletedProcess([module], 0, "", log.read_text())


def _main(call: tuple[str, str, tuple[Any, ...]], rank: int, count: int, port: int, log: Path, cwd: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    if count > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.chdir(cwd)
    module, function, arguments = call
    getattr(importlib.import_module(module), function)(*arguments)


@contextmanager
def _environment() -> Iterator[None]:
    """What the first process to be started, the one that forks, has around it."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ |= ENVIRONMENT
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

"""Several processes for one stage: `python -m stages.<name>` starts itself again under torchrun when its parameters ask for it."""

import os
import subprocess
import sys

from pydantic import Field

from stages.shared.params import ComputeSection, Section


class TrainingSection(ComputeSection):
    """Parameters of every stage that trains a language model."""

    processes: int = Field(1, ge=1, description="processes of torchrun, one a GPU (or gloo processes on CPU)")
    deepspeed: str = Field("", description="DeepSpeed configuration, e.g. infra/deepspeed/zero2.json; empty = plain torch")
    precision: str = Field("float32", pattern="^(float32|bfloat16)$", description="bfloat16 = autocast with float32 master weights")
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass: less memory, more time")


def needs_torchrun(params: Section) -> bool:
    return isinstance(params, TrainingSection) and (params.processes > 1 or bool(params.deepspeed)) and "LOCAL_RANK" not in os.environ


def torchrun(stage: str, params: Section) -> int:
    """Runs the stage in `params.processes` processes on this machine; returns the exit code."""
    assert isinstance(params, TrainingSection)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={params.processes}",
        "-m",
        f"stages.{stage}",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(params.threads)}
    if not _has_gpu():
        environment["DS_ACCELERATOR"] = "cpu"
    return subprocess.run(command, env=environment, check=False).returncode


def is_main_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def without_compiled_collectives() -> None:
    """Call before DeepSpeed starts on CPU. Gloo alone then does the collectives.

    DeepSpeed would compile a shared-memory operator into a folder that all projects of the user share. That takes a compiler and
    half a minute, and the lock of one compilation that was killed stops every later process for ever.
    """
    if not _has_gpu():
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
